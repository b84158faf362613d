"""A generated environment in the sandbox, for the agent loop."""

from trace_jax.sandbox.episode import SandboxEpisode, SandboxPool
from trace_jax.sandbox.module import SandboxedModule
from trace_jax.sandbox.sandbox import Sandbox


class SandboxHost:
    """Episodes of a module in ``sandbox.settings.processes`` processes, which are started when they are needed.

        host = SandboxHost(SandboxedModule(source, "Desk", {"size": 3}), shared_sandbox(settings.sandbox))

    One that dies breaks its episodes and is replaced.
    """

    def __init__(self, module: SandboxedModule, sandbox: Sandbox) -> None:
        self.version: str | None = module.version
        self._pool = SandboxPool(sandbox.plan(module), sandbox.settings.processes)

    async def open(self) -> SandboxEpisode:
        episode = await self._pool.open("train")
        assert isinstance(episode, SandboxEpisode)
        return episode

    def close(self) -> None:
        """End the processes. Their episodes break."""
        self._pool.close()
