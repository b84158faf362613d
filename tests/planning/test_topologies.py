"""The spellings of --topology, the published figures behind them, and what is refused."""

import pytest

from trace_jax.errors import UserError
from trace_jax.planning.chips import CHIPS, GIB
from trace_jax.planning.topology import parse_topology


@pytest.mark.parametrize(
    "text, name, chips, devices",
    [
        ("v5p:4x4x4", "v5p:4x4x4", 64, 64),
        ("v5e:4x4", "v5e:4x4", 16, 16),
        ("V6E:8x8", "v6e:8x8", 64, 64),
        ("tpu7x:2x2x2", "tpu7x:2x2x2", 8, 16),
        ("2*v5p:4x4x4", "2*v5p:4x4x4", 128, 128),
        ("h100:8", "h100:8", 8, 8),
        ("4*h100:8", "4*h100:8", 32, 32),
        ("v5p-8", "v5p:2x2x1", 4, 4),
        ("v5p-64", "v5p:2x4x4", 32, 32),
        ("V5P-128", "v5p:4x4x4", 64, 64),
        ("v5p-384", "v5p:4x4x12", 192, 192),
        ("v5p-512", "v5p:4x8x8", 256, 256),
        ("v5p-12288", "v5p:16x16x24", 6144, 6144),
        ("tpu7x-128", "tpu7x:4x4x4", 64, 128),
        ("v5e-16", "v5e:4x4", 16, 16),
        ("v5litepod-16", "v5e:4x4", 16, 16),
        ("2*v6e-64", "2*v6e:8x8", 128, 128),
        ("v7x:2x2x1", "tpu7x:2x2x1", 4, 8),
    ],
)
def test_spellings(text, name, chips, devices):
    topology = parse_topology(text)
    assert (topology.name, topology.chips, topology.devices) == (name, chips, devices)
    assert parse_topology(topology.name) == topology


@pytest.mark.parametrize(
    "text, told",
    [
        ("v5p:4x4", "v5p has 3 axes, as in v5p:4x4x4"),
        ("v5e:16", "v5e-16 is Google's name for v5e:4x4"),
        ("v5p:64", "v5p-64 is Google's name for v5p:2x4x4"),
        ("v5e:2x2x2", "v5e has 2 axes"),
        ("v5p-48", "v5p-N counts TensorCores, two a chip, and v5p:4x4x4 is v5p-128; write the shape, one of 2x2x1"),
        ("v5p-63", "counts TensorCores"),
        ("v5p-999999", "no slice has this name"),
        ("v5p-" + 5000 * "9", "write chip:shape"),
        ("v6e-48", "v6e-N counts chips, and v6e:4x4 is v6e-16; write the shape, one of 1x1, 2x2, 2x4"),
        ("h100-8", "as in h100:8"),
        ("h100:16", "2*h100:8"),
        ("0*v5e:4x4", "at least 1"),
        ("b200:8", "use one of v5e, v5p, v6e, tpu7x, h100"),
        ("v5p 4x4x4", "as in v5p:4x4x4"),
        ("", "as in v5p:4x4x4"),
    ],
)
def test_refused_with_the_remedy(text, told):
    with pytest.raises(UserError, match="^[^\n]*$") as refused:
        parse_topology(text)
    assert told in str(refused.value)
    assert not text or text in str(refused.value) or text.split(":")[0] in str(refused.value)


@pytest.mark.parametrize(
    "name, sold, both_ways",  # GB of memory, and GB/s of all links in both directions, as published
    [("v5e", 16, 400), ("v5p", 95, 1200), ("v6e", 32, 800), ("tpu7x", 192, 1200), ("h100", 80, 900)],
)
def test_figures_add_up_to_the_published_ones(name, sold, both_ways):
    chip = CHIPS[name]
    assert 2 * chip.ports * chip.link == both_ways * 1e9
    assert 0.9 * sold * 1e9 < chip.hbm < 1.01 * sold * GIB
