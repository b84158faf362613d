"""The published figures of each chip, in one table."""

from dataclasses import dataclass

from trace_jax.errors import UserError

GIB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """The figures of one chip: sizes in bytes, ``flops`` in FLOP/s (dense bfloat16), rates in bytes/s.

    Attributes:
        hbm: the memory that a program may allocate, which is less than the memory that is sold.
        link: one link of the interconnect, in one direction.
        ports: links that leave a chip.
        network: the rate at which a chip may send to another slice or node.
        rank: axes of the torus; 0 for a switch.
        wraps: a torus axis has a link from its last chip to its first one if its length is a multiple of this number.
        devices: JAX devices of one chip.
        counted: the amount that one chip adds to the number in Google's name of a slice. Some names count chips
            (v5e-16), others TensorCores (v5p-64 has 32 chips).
    """

    name: str
    hbm: int
    flops: float
    bandwidth: float
    link: float
    ports: int
    network: float
    rank: int
    wraps: int
    devices: int = 1
    counted: int = 1


# TPU figures: cloud.google.com/tpu/docs/{v5e,v5p,v6e,tpu7x}, "key specifications". Their interconnect bandwidth counts
# both directions of all ports: v5e 400, v5p 1200, v6e 800, tpu7x 1200 GB/s. Programs reach about 10 % less
# (jax-ml.github.io/scaling-book/tpus: 45 and 90 GB/s a link). ``hbm`` is the memory that libtpu 0.0.50 lets a program
# allocate (its error says "exceeds available HBM (15.75G)"). Wrap-around: the same book, "TPU networking" (v5p and
# tpu7x in cubes of 4, v5e and v6e only at 16). Network: the same tables, Gbit/s a chip; v5e has 6.4 Tbit/s for 256
# chips. H100 SXM: NVIDIA's data sheet (989 TFLOP/s dense, 3.35 TB/s, NVLink 900 GB/s both directions). Its ``hbm`` is
# 0.92 of device_memory_size in targets/h100.txtpb, as XLA_PYTHON_CLIENT_MEM_FRACTION=.92 would give. We assume that
# CUDA's context, NCCL and cuDNN need the rest. ``network`` is one ConnectX-7 (400 Gbit/s) a GPU, as in a DGX H100.
_TABLE = (
    Chip("v5e", int(15.75 * GIB), 197e12, 819e9, 50e9, 4, 6.4e12 / 256 / 8, rank=2, wraps=16),
    Chip("v5p", int(95.73 * GIB), 459e12, 2765e9, 100e9, 6, 50e9 / 8, rank=3, wraps=4, counted=2),
    Chip("v6e", int(31.24 * GIB), 918e12, 1638e9, 100e9, 4, 100e9 / 8, rank=2, wraps=16),
    Chip("tpu7x", int(2 * 94.74 * GIB), 2307e12, 7380e9, 100e9, 6, 100e9 / 8, rank=3, wraps=4, devices=2, counted=2),
    Chip("h100", int(0.92 * 84_929_347_584), 989.4e12, 3352e9, 450e9, 1, 400e9 / 8, rank=0, wraps=0),
)
CHIPS = {chip.name: chip for chip in _TABLE}


def find_chip(name: str) -> Chip:
    """The chip of that name. Raises UserError for one that is not in the table."""
    if name not in CHIPS:
        raise UserError(f"chip {name!r} is unknown: use one of {', '.join(CHIPS)}")
    return CHIPS[name]
