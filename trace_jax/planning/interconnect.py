"""Seconds of a collective on the links between chips, from the bandwidth of the links alone (no latency).

On a torus a group uses the links along the axes in which its chips differ. A chip has two links along an axis that is
closed to a ring, and counts as having one along a line, because a line's end has one neighbour. Between slices, or
boxes of GPUs, each chip exchanges its share over the network before or after an exchange inside the slice. Source: "How
to Scale Your Model", chapter "Sharded matrices" (jax-ml.github.io/scaling-book/sharding).
"""

from collections.abc import Sequence
from typing import Any

from trace_jax.planning.collectives import NETWORK, Collective
from trace_jax.planning.devices import slice_of
from trace_jax.planning.topology import Topology

_DIE_TO_DIE = 6  # both halves of a tpu7x chip: six times one link (cloud.google.com/tpu/docs/tpu7x, "dual-chiplet")


def collective_seconds(collective: Collective, devices: Sequence[Any], topology: Topology) -> float:
    """Seconds of one execution. ``devices`` are the devices of the program's mesh, in order."""
    network = topology.chip.network / topology.chip.devices
    if collective.kind.startswith(NETWORK):
        return collective.sent / network
    group = max(collective.groups, key=len)
    slices: dict[int, list[Any]] = {}
    for number in group:
        slices.setdefault(slice_of(devices[number]), []).append(devices[number])
    inside = max(slices.values(), key=len)
    if collective.kind == "collective-permute":
        crosses = any(len({slice_of(devices[number]) for number in pair}) > 1 for pair in collective.groups)
        return collective.payload / (network if crosses else topology.chip.link / topology.chip.devices)
    seconds = 0.0
    factor = 2 if collective.kind == "all-reduce" else 1
    if len(slices) > 1:
        share = collective.payload / len(inside)
        seconds += factor * share * (len(slices) - 1) / len(slices) / network
    if len(inside) > 1:
        seconds += _inside_slice(collective, factor, inside, topology)
    return seconds


def _inside_slice(collective: Collective, factor: int, group: list[Any], topology: Topology) -> float:
    chip = topology.chip
    sent = factor * collective.payload * (len(group) - 1) / len(group)
    if chip.rank == 0:
        return sent / chip.link
    link = chip.link / chip.devices  # the devices of one chip share its links
    extents = [len(set(places)) for places in zip(*(device.coords for device in group), strict=True)]
    along = [(extent, _is_ring(extent, axis, topology)) for axis, extent in enumerate(extents) if extent > 1]
    if not along:  # the group consists of the halves of one chip
        return sent / (_DIE_TO_DIE * chip.link)
    bandwidth = sum(2 * link if ring else link for _, ring in along)
    if "all-to-all" in collective.kind:
        # Half of the chips send half of their data across the middle of the longest axis.
        return max(collective.payload * extent / 4 / (2 * link if ring else link) for extent, ring in along)
    return sent / bandwidth


def _is_ring(extent: int, axis: int, topology: Topology) -> bool:
    whole = axis < len(topology.shape) and extent == topology.shape[axis]
    return whole and extent % topology.chip.wraps == 0
