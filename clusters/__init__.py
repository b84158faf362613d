"""Renders one cluster configuration as a GKE JobSet, a SkyPilot task and plain SSH scripts. Calls no cloud.

from clusters import read_cluster, render_gke

rendered = render_gke(read_cluster(config.to_dict()))    # its files by name, and the commands to type next
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "check": ["read_cluster"],
        "cluster": ["Cluster"],
        "files": ["Rendered"],
        "gke": ["render_gke"],
        "skypilot": ["render_skypilot"],
        "ssh": ["render_ssh"],
    },
)
