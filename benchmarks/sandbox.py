"""Speed and memory of sandboxed environments, and what gates and episodes of theirs cost.

    python -m benchmarks.sandbox [--seconds=2] [--workers=2]

Each line of the output is a JSON object:

- ``steps``: steps a second of a ``trivial`` environment, which answers with a message, and of one on the ``kit``, whose
  step is a call of a tool. ``single`` has one episode a process, so that a line holds one step; in ``batched`` 64
  episodes move together; ``gates`` is the synchronous client, which does not await.
- ``start``: seconds until the fork server has loaded what modules import, once a program.
- ``episode``: milliseconds until a new episode has been reset, in a process that is there, and in a new one.
- ``memory``: megabytes of a process that holds one episode, and of one that holds 500.
"""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from absl import app

from benchmarks.hosts import SECONDS, TOGETHER, TURN, WORKERS, speed
from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.environments.hosts.in_process import InProcess
from trace_jax.sandbox import Sandbox, SandboxedFactory, SandboxedModule, SandboxHost, SandboxSettings
from trace_jax.sandbox.sandbox import LOCKED

MANY, NEW = 500, 20
SOURCE = '''
from dataclasses import dataclass
from random import Random
from trace_jax.environments import kit

@dataclass
class Lamps:
    on: dict[str, bool]

    @kit.tool
    def switch(self, room: str, on: bool) -> bool:
        """Switch the lamp of a room on or off."""
        if room not in self.on:
            raise kit.ToolError(f"no room {room}")
        self.on[room] = on
        return on

class Lights(kit.Environment[Lamps]):
    name, policy, state_type = "lights", "You switch lamps. Tell what you did.", Lamps

    def draw(self, rng: Random) -> kit.Scenario[Lamps]:
        scenario = kit.Scenario(Lamps({room: rng.random() < 0.5 for room in ("hall", "bath", "attic")}))
        room, on = rng.choice(["hall", "bath", "attic"]), rng.random() < 0.5
        scenario.add(kit.Request(f"Switch the {room} lamp.", (kit.call("switch", room=room, on=on),)))
        return scenario
'''
MODULE = SandboxedModule(SOURCE, "Lights")
TRIVIAL = """
from trace_jax.contract.trajectory import Message
from trace_jax.environments.protocol import Observation, Outcome

ANSWER = Message(role="user", content="done, what else?")

class Trivial:
    name, tools = "trivial", ()
    def reset(self, task): return Observation((ANSWER,))
    def step(self, message): return Observation((ANSWER,))
    def grade(self): return Outcome(1.0)
    def state(self): return {}
"""
CALL = ToolCall(id="c", name="switch", arguments={"room": "hall", "on": True})
KINDS = {
    "trivial": (SandboxedModule(TRIVIAL, "Trivial"), TURN),
    "kit": (MODULE, Message(role="assistant", tool_calls=(CALL,))),
}


def gate_speed(sandbox: Sandbox, module: SandboxedModule, turn: Message) -> float:
    """Steps a second of the synchronous client."""
    make = SandboxedFactory(module, sandbox)
    environment = make()
    environment.reset(0)
    started, steps = time.perf_counter(), 0
    while time.perf_counter() < started + SECONDS.value:
        environment.step(turn)
        steps += 1
    make.close()
    return steps / (time.perf_counter() - started)


def new_episode(sandbox: Sandbox, *, in_new_process: bool) -> float:
    """Milliseconds until a new episode has been reset, the median of several."""
    make, walls = SandboxedFactory(MODULE, sandbox), []
    make().reset(0)
    for number in range(NEW):
        if in_new_process:
            make.close()
            make = SandboxedFactory(MODULE, sandbox)
        started = time.perf_counter()
        make().reset(number)
        walls.append(time.perf_counter() - started)
    make.close()
    return sorted(walls)[NEW // 2] * 1000


def memory(sandbox: Sandbox, episodes: int) -> tuple[float, float]:
    """Megabytes of a process that holds so many episodes: proportional set size, and what it shares with no other."""
    make = SandboxedFactory(MODULE, sandbox)
    held = [make() for _ in range(episodes)]
    for number, environment in enumerate(held):
        environment.reset(number)
    pages = Path(f"/proc/{_newest(sandbox.pid)}/smaps_rollup").read_text().split()
    make.close()
    private = sum(int(pages[pages.index(f"Private_{kind}:") + 1]) for kind in ("Clean", "Dirty"))
    return int(pages[pages.index("Pss:") + 1]) / 1000, private / 1000


def _newest(pid: int) -> int:
    """The last process that was started below ``pid``."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _newest(int(children[-1])) if children else pid


def main(_: list[str]) -> None:
    def report(measured: str, **values: Any) -> None:
        print(json.dumps({"measured": measured, **values}), flush=True)

    settings = SandboxSettings(processes=WORKERS.value)
    for kind, (module, turn) in KINDS.items():
        ours = dict[str, Any](__name__=__name__)
        exec(module.source, ours)
        rate = asyncio.run(speed(InProcess(ours[module.entry]), TOGETHER, turn))
        report("steps", environment=kind, host="in process", steps_per_second=round(rate))
    for mode in LOCKED:
        started = time.perf_counter()
        sandbox = Sandbox(settings, modes=(mode,))
        report("start", mode=mode, seconds=round(time.perf_counter() - started, 2))
        for kind, (module, turn) in KINDS.items():
            for name, number in (("single", WORKERS.value), ("batched", TOGETHER)):
                host = SandboxHost(module, sandbox)
                rate = asyncio.run(speed(host, number, turn))
                report("steps", mode=mode, environment=kind, host=name, steps_per_second=round(rate))
                host.close()
            rate = gate_speed(sandbox, module, turn)
            report("steps", mode=mode, environment=kind, host="gates", steps_per_second=round(rate))
        for new in (False, True):
            milliseconds = round(new_episode(sandbox, in_new_process=new), 1)
            report("episode", mode=mode, in_new_process=new, milliseconds=milliseconds)
        for episodes in (1, MANY):
            total, private = memory(sandbox, episodes)
            report("memory", mode=mode, episodes=episodes, megabytes=round(total, 1), private=round(private, 1))
        sandbox.close()
    report("machine", cores=os.cpu_count(), load_average=round(os.getloadavg()[0], 1))


if __name__ == "__main__":
    app.run(main)
