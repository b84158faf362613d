"""Where a design is played: in this process if its code is ours, in the sandbox if a language model wrote it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trace_jax.contract.environment import SANDBOX, Design
from trace_jax.environments.host import Host
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.environments.protocol import Environment
from trace_jax.environments.registry import environment_factory
from trace_jax.sandbox.environment import SandboxedFactory
from trace_jax.sandbox.host import SandboxHost
from trace_jax.sandbox.module import SandboxedModule
from trace_jax.sandbox.sandbox import Sandbox, shared_sandbox
from trace_jax.sandbox.settings import SandboxSettings


def host_of_design(design: Design, own: Design | None, settings: SandboxSettings) -> Host:
    """The host on which the agent loop plays ``design``; ``own`` is how the run's target is built.

    Raises UserError for a design that may not be played, and if this machine has no sandbox for it.
    """
    if design.source is None:
        return InProcess(environment_factory(design, own))
    return SandboxHost(module_of(design), shared_sandbox(settings))


@contextmanager
def factory_of_design(
    design: Design, own: Design | None, sandbox: Callable[[], Sandbox]
) -> Iterator[Callable[[], Environment]]:
    """Makes environments of ``design`` for callers that do not await, on ``sandbox()`` if it has a source.

    They live while the block runs. Raises UserError as ``host_of_design`` does.
    """
    if design.source is None:
        yield environment_factory(design, own)
        return
    factory = SandboxedFactory(module_of(design), sandbox())
    try:
        yield factory
    finally:
        factory.close()


def module_of(design: Design) -> SandboxedModule:
    """The module of a design that has a source."""
    assert design.source is not None
    return SandboxedModule(design.source, design.entry_point.removeprefix(SANDBOX), design.parameters)
