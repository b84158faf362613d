"""The forked process: it locks itself, reads the source of a module, and answers requests about its environments.

It belongs to the generated code from then on. Whatever it writes is judged by our side and never believed.
"""

import dataclasses
import errno
import importlib.abc
import json
import os
import sys
import time
import traceback
import types
from collections.abc import Callable, Sequence
from typing import Any

from trace_jax.environments.hosts.worker import Answers, Environments
from trace_jax.sandbox.lock import lock

LONGEST = 1 << 20  # characters of an answer
MOMENT = 0.05  # seconds that an answer may wait for those that follow it
OPTIONAL = ("hint", "prompts", "mutant")  # methods that a generated environment may have
FILE = "<module>"  # the name of the source in error messages
_NAME = "sandboxed"  # of the module


class Episodes(Environments):
    """The environments of the module. They also show their solution and their state."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        super().__init__(factory)
        self._make = lambda split: factory()  # not a target, whatever its attributes are

    def answer(self, episode: int, operation: str, argument: Any) -> str:
        """The JSON text of one answer."""
        if operation == "solution":
            return _messages(self._open[episode].solution())
        if operation == "state":
            return json.dumps(self._open[episode].state(), allow_nan=False)
        if operation == "hint":
            return json.dumps(self._open[episode].hint())
        if operation == "mutant":
            found = self._open[episode].mutant(argument)
            return "null" if found is None else self._observed(found, "")
        if operation == "prompts":
            seed, other = argument
            found = self._open[episode].prompts(seed, None if other is None else _shown(*other))
            parts = (found.exercised, found.routine, found.combined)
            return f"[{','.join(map(_messages, parts))}]"
        if operation == "open":
            opened = super().answer(episode, operation, argument)
            has = [name for name in OPTIONAL if hasattr(self._open[episode], name)]
            return f'{opened[:-1]},"has":{json.dumps(has)}}}'
        return super().answer(episode, operation, argument)


class NoImports(importlib.abc.MetaPathFinder):
    """Says what can be imported, when something else is."""

    def find_spec(self, name: str, path: "Sequence[str] | None", target: Any = None) -> None:
        from trace_jax.sandbox.preloaded import OURS, STANDARD

        known = [each for each in (*STANDARD, *OURS) if not each.startswith(("_", "encodings."))]
        raise ModuleNotFoundError(f"{name!r} cannot be imported here: known are {', '.join(known)}", name=name)


def run(channel: int, memory_mib: "int | None", server: int) -> None:
    """Serve one module over ``channel``; unlocked if ``memory_mib`` is None. ``server`` is the process that forked."""
    requests, answers = open(channel, "rb", buffering=1 << 16, closefd=False), Answers(channel)
    sys.meta_path[:] = [NoImports()]
    sys.path.clear()
    os.environ.clear()
    try:
        if memory_mib is not None:
            lock(memory_mib, server)
        plan = json.loads(requests.readline())
        if plan.get("probe"):
            answers.write(['[0,{"locked":true}]'])
            return
        episodes = Episodes(load(plan["source"], plan["entry"], plan["parameters"]))
        answers.write(["[0,{}]"])
    except BaseException as error:
        answers.write([f"[0,null,{json.dumps(error_line(error, memory_mib))}]"])
        return
    for line in requests:
        serve(episodes, json.loads(line), answers, memory_mib)
    os._exit(0)


def serve(episodes: Episodes, batch: "list[Any]", answers: Answers, memory_mib: "int | None") -> None:
    """Answer the requests of one line. Answers wait for one another for a moment only: our side counts the time."""
    ready, since = list[str](), time.monotonic()
    for number, episode, operation, argument in batch:
        if ready and time.monotonic() - since > MOMENT:
            answers.write(ready)
            ready, since = [], time.monotonic()
        try:
            text = episodes.answer(episode, operation, argument)
            if len(text) > LONGEST:
                raise ValueError(f"{operation} returned {len(text)} characters, more than {LONGEST}")
            ready.append(f"[{number},{text}]")
        except BaseException as error:  # the module may raise anything; it breaks this episode only
            ready.append(f"[{number},null,{json.dumps(error_line(error, memory_mib))}]")
    answers.write(ready)


def load(source: str, entry: str, parameters: "dict[str, Any]") -> Callable[[], Any]:
    """What makes environments: the class or function ``entry`` of the module, with its parameters."""
    module = types.ModuleType(_NAME)
    sys.modules[_NAME] = module  # dataclasses and type hints look for their module there
    exec(compile(source, FILE, "exec"), module.__dict__)
    factory = getattr(module, entry, None)
    if not callable(factory):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == _NAME]
        raise NameError(f"the module has no class or function {entry!r}: it has {', '.join(own) or 'none'}")
    return lambda: factory(**parameters)


def error_line(error: BaseException, memory_mib: "int | None") -> str:
    """An error in one line, with the line of the source where it was raised."""
    kind, text = type(error).__name__, " ".join(str(error).split())[:2000]
    if isinstance(error, MemoryError) and memory_mib is not None:
        text = f"used more than {memory_mib} MiB"
    if isinstance(error, OSError) and error.errno == errno.EPERM:
        text = f"forbidden system call: {text}: there are no files, processes or sockets here"
    frames = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == FILE]
    where = f" (line {frames[-1]})" if frames and not isinstance(error, SyntaxError) else ""
    return f"{kind}: {text}{where}" if text else f"{kind}{where}"


def warm_up() -> None:
    """Do once what every process would do: pydantic builds its validators when they are first used."""
    from trace_jax.contract.trajectory import Message
    from trace_jax.environments import kit

    @dataclasses.dataclass
    class Lamp:
        on: bool

        @kit.tool
        def switch(self, on: bool) -> bool:
            """Switch the lamp on or off."""
            return on

    kit.tools(Lamp)
    Message.model_validate_json(Message(role="user", content="hello").model_dump_json())


def _shown(name: str, exercised: "list[Any]", routine: "list[Any]") -> Any:
    """The environment with which prompts are combined. It is in another process, and these are its own prompts."""
    from trace_jax.contract.trajectory import Message
    from trace_jax.environments.kit.exercise import ShownExercise
    from trace_jax.environments.protocol import Prompts

    parts = [tuple(Message.model_validate(message, strict=False) for message in part) for part in (exercised, routine)]
    return ShownExercise(name, Prompts(*parts))


def _messages(messages: Any) -> str:
    return f"[{','.join([message.model_dump_json() for message in messages])}]"
