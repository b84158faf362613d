"""Devices of a topology that this machine does not have. Programs can be compiled for them, but cannot run."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from trace_jax.errors import UserError
from trace_jax.planning.topology import Topology

_TARGETS = Path(__file__).parent / "targets"  # descriptions of GPUs, in the text form of XLA's GpuTargetConfigProto


@cache
def describe_devices(topology: Topology) -> tuple[Any, ...]:
    """The devices of ``topology``, in the order of its slices. Call ``prepare_environment`` before JAX is imported.

    Raises UserError if the compiler for these devices is not installed, or if it refuses the shape.
    """
    if topology.chip.rank == 0:
        _need("jax_cuda12_plugin", topology, 'pip install "jax[cuda12-local]"')
        text = (_TARGETS / f"{topology.chip.name}.txtpb").read_text()
        shape = f"{topology.slices}x1x{topology.shape[0]}"  # slices x hosts a slice x GPUs a host
        return _description(topology, platform="cuda", target_config=text, topology=shape)
    _need("libtpu", topology, 'pip install "jax[tpu]"')
    name = f"{topology.chip.name}:{'x'.join(map(str, topology.shape))}"
    return _description(topology, platform="tpu", topology_name=name, num_slices=topology.slices)


def slice_of(device: Any) -> int:
    """The number of the slice (or box of GPUs) of a device."""
    index = getattr(device, "slice_index", None)
    return 0 if index is None else index


def _description(described: Topology, **arguments: Any) -> tuple[Any, ...]:
    try:
        devices = tuple(topologies.get_topology_desc(**arguments).devices)
    except (jax.errors.JaxRuntimeError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"topology {described.name}: {reason}: name a slice that exists") from None
    if len(devices) != described.devices:
        raise UserError(f"topology {described.name}: {described.devices} devices expected, {len(devices)} found")
    return devices


def _need(module: str, topology: Topology, command: str) -> None:
    if find_spec(module) is None:
        raise UserError(f"topology {topology.name}: its compiler, {module}, is not installed: {command}")
