"""One cluster configuration, rendered as a GKE JobSet, a SkyPilot task and plain SSH scripts. No cloud is called."""
