"""Renders one cluster configuration as a GKE JobSet, a SkyPilot task and plain SSH scripts. Calls no cloud."""
