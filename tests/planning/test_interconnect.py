"""Seconds on the links, against what the number of links and the bytes over each of them say."""

from types import SimpleNamespace

import pytest

from trace_jax.planning.collectives import Collective
from trace_jax.planning.interconnect import collective_seconds
from trace_jax.planning.topology import parse_topology

MB = 1 << 20


def devices(topology):
    """As libtpu describes them: coordinates, slice after slice, two to a chip where it has two."""
    ranges = [range(size) for size in topology.shape]
    ranges += [range(1)] * (3 - len(ranges))
    return [
        SimpleNamespace(coords=(x, y, z), slice_index=number, core=core)
        for number in range(topology.slices)
        for z in ranges[2]
        for y in ranges[1]
        for x in ranges[0]
        for core in range(topology.chip.devices)
    ]


def seconds(name, kind, group, payload=64 * MB, sent=0.0):
    topology = parse_topology(name)
    collective = Collective(kind, 1, payload, sent, (tuple(group),), (), "", "", False, False)
    return collective_seconds(collective, devices(topology), topology)


def test_a_ring_has_two_links_and_a_line_one():
    link = parse_topology("v5p:4x4x4").chip.link
    share = 64 * MB * 3 / 4
    assert seconds("v5p:4x4x4", "all-gather", range(4)) == pytest.approx(share / (2 * link))
    assert seconds("v5p:2x2x4", "all-gather", (0, 4, 8, 12)) == pytest.approx(share / (2 * link))
    link = parse_topology("v5e:4x4").chip.link
    assert seconds("v5e:4x4", "all-gather", range(4)) == pytest.approx(share / link)  # only 16 chips close a ring
    assert seconds("v5e:16x16", "all-gather", range(16)) == pytest.approx(64 * MB * 15 / 16 / (2 * link))
    # Part of an axis is no ring.
    assert seconds("v5p:4x4x8", "all-gather", (0, 16, 32, 48)) == pytest.approx(share / (2 * link))


def test_more_axes_have_more_links_and_a_sum_goes_twice():
    link = parse_topology("v5p:4x4x4").chip.link
    gathered = seconds("v5p:4x4x4", "all-gather", range(16))
    assert gathered == pytest.approx(64 * MB * 15 / 16 / (4 * link))
    assert seconds("v5p:4x4x4", "all-reduce", range(16)) == pytest.approx(2 * gathered)
    assert seconds("v5p:4x4x4", "reduce-scatter", range(16)) == pytest.approx(gathered)


def test_everyone_to_everyone_is_bound_by_the_middle():
    link = parse_topology("v5e:16x16").chip.link
    # Ring of 16: 8 chips send half of what they hold over the cut, which has two links in each direction.
    assert seconds("v5e:16x16", "all-to-all", range(16)) == pytest.approx(8 * 64 * MB / 2 / (2 * link) / 1)


def test_neighbours():
    link = parse_topology("v5p:4x4x4").chip.link
    assert seconds("v5p:4x4x4", "collective-permute", (0, 1)) == pytest.approx(64 * MB / link)
    chip = parse_topology("2*v5p:2x2x1").chip
    assert seconds("2*v5p:2x2x1", "collective-permute", (0, 4)) == pytest.approx(64 * MB / chip.network)


def test_halves_of_a_chip_share_its_links():
    chip = parse_topology("tpu7x:2x2x1").chip
    assert seconds("tpu7x:2x2x1", "all-gather", (0, 1)) == pytest.approx(32 * MB / (6 * chip.link))
    assert seconds("tpu7x:2x2x1", "all-gather", (0, 2)) == pytest.approx(32 * MB / (chip.link / 2))


def test_boxes_of_gpus_exchange_a_share_over_the_network():
    chip = parse_topology("2*h100:8").chip
    inside = 64 * MB * 7 / 8 / chip.link
    assert seconds("h100:8", "all-gather", range(8)) == pytest.approx(inside)
    over = 64 * MB / 8 / 2 / chip.network
    assert seconds("2*h100:8", "all-gather", range(16)) == pytest.approx(inside + over)


def test_network_of_slices():
    chip = parse_topology("2*v5p:2x2x1").chip
    assert seconds("2*v5p:2x2x1", "network-all-reduce", (0, 4), sent=5 * MB) == pytest.approx(5 * MB / chip.network)
