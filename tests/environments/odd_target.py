"""A target whose environments do as the agent says, however bad that is. It runs in worker processes."""

import os
import signal
import subprocess
import sys
import threading
import time

from trace_jax.contract.trajectory import Check, Message, Tool
from trace_jax.environments import Observation, Outcome

TOOL = Tool(name="add", description="Adds.", parameters={"type": "object", "properties": {"x": {"type": "integer"}}})


def say(text: str, done: bool = False) -> Observation:
    return Observation((Message(role="user", content=text),), done)


class Odd:
    """One episode. ``step`` does what the message says."""

    name, tools = "odd", (TOOL,)

    def __init__(self, split: str = "train") -> None:
        self.split, self.heard = split, []
        self.thread = threading.get_ident()

    def reset(self, task):
        self.task = task
        self.tools = (TOOL.replace(name="subtract"),) if task == "subtraction" else (TOOL,)
        if str(task).startswith("other tools"):
            self.tools = (TOOL.replace(name=str(task)),)
        return say(f"{self.split} {task!r}")

    def step(self, message):
        self.heard.append(message)
        words = (message.content or "").split()
        found = getattr(self, f"on_{words[0]}", None) if words else None
        return say(f"{message.content} {len(self.heard)}") if found is None else found(*words[1:])

    def grade(self):
        return Outcome(0.5, {"heard": float(len(self.heard))}, (Check(name="heard", passed=True, detail="é"),))

    def on_calls(self):
        return say(repr([(call.name, call.arguments, call.raw_arguments) for call in self.heard[-1].tool_calls]))

    def on_pid(self):
        return say(f"{os.getpid()} {self.thread == threading.get_ident()}")

    def on_sleep(self, seconds):
        time.sleep(float(seconds))
        return say("awake")

    def on_spin(self):
        while True:
            pass

    def on_raise(self):
        raise LookupError("no\nsuch order \ud83d")

    def on_sysexit(self):
        sys.exit(3)

    def on_exit(self):
        sys.stderr.write("a long traceback\nthe disk is full\n")
        os._exit(3)

    def on_kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def on_print(self):
        print("[[0,1]]", flush=True)
        os.write(1, b"not for the lines\n" * 100_000)
        subprocess.run(["echo", "[1,2,3]"], check=True)
        return say("printed")

    def on_fork(self):
        if os.fork() == 0:
            return say("I am the child")
        return say("forked")

    def on_linger(self):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        return say("forked")

    def on_lines(self, *words):
        """Write a line where the worker writes its answers."""
        os.write(int(sys.argv[3]), " ".join(words).encode() + b"\n")
        return say("written")

    def on_flood(self):
        data = b"x" * (1 << 20)
        while True:
            os.write(int(sys.argv[3]), data)

    def on_long(self, megabytes):
        return say("é" * (int(megabytes) << 20))

    def on_surrogate(self):
        return say("half \ud83d")

    def on_none(self):
        return None

    def on_nan(self):
        return Observation((self.heard[-1].model_copy(update={"role": "user", "content": 7}),))


class Desk:
    """The target. ``load`` is what happens while it is made."""

    name, results, version = "odd", {"add": {"type": "integer"}}, "odd 1.0"

    def __init__(self, load: str = "", pinned: int = 0) -> None:
        if pinned:
            self.episodes_per_worker = pinned
        if load == "exit":
            sys.exit("no licence")
        if load:
            raise RuntimeError(load)

    def tasks(self, split):
        return (1, 2, 3) if split == "train" else ("a", "b")

    def environment(self, split):
        return Odd(split)


class Quick(Desk):
    """Its steps do not block."""

    quick = True


class NoResults(Desk):
    results = None


class NoTasks(Desk):
    def tasks(self, split):
        return [1, [2]]


class Idle(Desk):
    """It knows which tasks are given away, after a while."""

    def __init__(self, told: object, seconds: float = 0.0) -> None:
        super().__init__()
        self._told, self._seconds = told, seconds

    def do_nothing(self, split):
        time.sleep(self._seconds)
        return self._told if split == "train" else ("b",)
