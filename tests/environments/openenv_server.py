"""A small environment served by OpenEnv's own server on loopback: ``python openenv_server.py KIND`` prints its port.

``words`` is acted on in text, ``numbers`` by several fields, and ``tools`` offers MCP tools.
"""

import socket
import sys

import uvicorn
from fastmcp import FastMCP
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation


class Say(Action):
    text: str


class Add(Action):
    """Add two numbers."""

    left: int
    right: int


class Heard(Observation):
    text: str


class Words(Environment):
    """Each turn that repeats the seed's word is worth 1; three turns."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self._state = State()

    def reset(self, seed=None, episode_id=None, **_):
        self.word, self._state = f"w{seed}", State()
        return Heard(text=f"Say {self.word}.")

    def step(self, action, timeout_s=None, **_):
        self._state.step_count += 1
        if getattr(action, "text", "") == "boom":
            raise RuntimeError("the server broke")
        said = action.text if isinstance(action, Say) else f"w{action.left + action.right}"
        return Heard(text="again", done=self._state.step_count == 3, reward=float(said == self.word))

    @property
    def state(self):
        return self._state


class Tools(MCPEnvironment):
    """One tool, which ends nothing; a reward for each call."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        server = FastMCP("tools")

        @server.tool
        def double(x: int) -> int:
            """Twice x."""
            return 2 * x

        super().__init__(server)
        self._state = State()

    def reset(self, seed=None, episode_id=None, **_):
        return Observation(done=False, metadata={})

    async def step_async(self, action, timeout_s=None, **more):
        found = await super().step_async(action, timeout_s=timeout_s, **more)
        found.reward = 0.5 if isinstance(action, CallToolAction) else 0.0
        return found

    def _step_impl(self, action, timeout_s=None, **_):
        raise NotImplementedError

    @property
    def state(self):
        return self._state


KINDS = {
    "words": (Words, Say, Heard),
    "numbers": (Words, Add, Heard),
    "tools": (Tools, CallToolAction, CallToolObservation),
}

if __name__ == "__main__":
    app = create_fastapi_app(*KINDS[sys.argv[1]], max_concurrent_envs=8)
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
