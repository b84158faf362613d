"""The worker process: runs the environments of one target, and answers requests. It needs pydantic and nothing else.

    python worker.py ROOT REQUESTS ANSWERS

ROOT is the directory of the package ``trace_jax``; the other two are file descriptors. A line of requests is a JSON list
of ``[id, episode, operation, argument]``; a line of answers is a list of ``[id, value]`` or ``[id, null, error]``. The
first line is ``{"kind": "target", "path": "module:name", "parameters": {…}}``. What environments print goes to standard
output and standard error, never to these lines.

Each episode has a thread of its own, so that a step may block. A target that declares ``quick = True`` promises that no
step blocks: its episodes then share the main thread, which is three times as fast.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
import queue
import sys
import threading
import types
from typing import Any

LONGEST = 16 << 20  # bytes of an answer; a longer one breaks its episode
GROUPS = {"target": "trace_jax.targets", "environment": "trace_jax.environments"}


def find_ours(root: str) -> None:
    """Make ``trace_jax`` importable from ``root``, and nothing else there: its neighbours are of another environment."""
    sys.path[:] = ["", *(path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__)))]
    try:
        import lazy_loader  # noqa: F401
    except ImportError:
        sys.modules["lazy_loader"] = types.ModuleType("lazy_loader")
        sys.modules["lazy_loader"].attach = _attach  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location(
        "trace_jax", os.path.join(root, "__init__.py"), submodule_search_locations=[root]
    )
    assert spec is not None and spec.loader is not None
    sys.modules["trace_jax"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _attach(package: str, submod_attrs: dict[str, list[str]]) -> Any:
    """``lazy_loader.attach``, for an environment that lacks it."""
    modules = {name: module for module, names in submod_attrs.items() for name in names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return get, lambda: sorted(modules), sorted(modules)


def load(kind: str, path: str, parameters: dict[str, Any]) -> Any:
    """What makes the target or the environments: a class or factory, with its parameters."""
    if ":" not in path:
        found = [point.value for point in importlib.metadata.entry_points(group=GROUPS[kind]) if point.name == path]
        if not found:
            raise LookupError(f"no {kind} {path!r} is installed in {sys.executable}: install it, or give module:Class")
        path = found[0]
    module, _, name = path.partition(":")
    return functools.partial(getattr(importlib.import_module(module), name), **parameters)


class Environments:
    """The target of this process, and its open episodes."""

    def __init__(self, kind: str, path: str, parameters: dict[str, Any]) -> None:
        from trace_jax.contract.trajectory import Message
        from trace_jax.environments.protocol import Observation, Outcome

        self._message, self._observation, self._outcome = Message, Observation, Outcome
        factory = load(kind, path, parameters)
        self._target = factory() if kind == "target" else None
        self._make = self._target.environment if kind == "target" else lambda split: factory()
        self.quick = bool(getattr(self._target if kind == "target" else factory.func, "quick", False))
        self._open: dict[int, Any] = {}

    def answer(self, episode: int, operation: str, argument: Any) -> str:
        """The JSON text of one answer."""
        if operation == "step":
            return self._observed(self._open[episode].step(self._message.model_validate(argument, strict=False)))
        if operation == "reset":
            return self._observed(self._open[episode].reset(argument))
        if operation == "open":
            self._open[episode] = environment = self._make(argument)
            return f'{{"name":{json.dumps(str(environment.name))},"tools":{_parts(environment.tools)}}}'
        if operation == "grade":
            return self._graded(self._open[episode].grade())
        if operation == "close":
            environment = self._open.pop(episode, None)
            if hasattr(environment, "close"):
                environment.close()
            return "null"
        if operation == "tasks":
            return json.dumps(list(self._target.tasks(argument)))
        assert operation == "describe", operation
        return json.dumps(self._described())

    def _described(self) -> dict[str, Any]:
        target = self._target
        wanted = ("name", "results", "version", "episodes_per_worker")
        return {name: getattr(target, name) for name in wanted if hasattr(target, name)}

    def _observed(self, value: Any) -> str:
        if not isinstance(value, self._observation):
            raise TypeError(f"expected an Observation of Messages, got {str(value)[:80]!r}")
        return f'{{"messages":{_parts(value.messages)},"done":{"true" if value.done else "false"}}}'

    def _graded(self, value: Any) -> str:
        if not isinstance(value, self._outcome):
            raise TypeError(f"expected an Outcome, got {str(value)[:80]!r}")
        rest = json.dumps({"reward": value.reward, "components": value.components, "extra": value.extra})
        return f'{rest[:-1]},"checks":{_parts(value.checks)}}}'


def _parts(parts: Any) -> str:
    return f"[{','.join([part.model_dump_json() for part in parts])}]"


class Answers:
    """Writes lines of answers. Answers that are ready at the same moment share a line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._process = descriptor, os.getpid()
        self._ready: "queue.SimpleQueue[str]" = queue.SimpleQueue()
        self._writing = threading.Lock()

    def add(self, answer: str) -> None:
        """Write the answer, or leave it to the thread that writes just now."""
        self._ready.put(answer)
        while not self._ready.empty() and self._writing.acquire(blocking=False):
            try:
                taken = []
                while not self._ready.empty():
                    taken.append(self._ready.get())
                if taken:
                    self.write(taken)
            finally:
                self._writing.release()

    def write(self, answers: "list[str]") -> None:
        """Write one line."""
        if os.getpid() != self._process:
            os._exit(0)  # an environment forked, and this is the child: the lines belong to its parent
        data = memoryview(f"[{','.join(answers)}]\n".encode())
        while data:
            data = data[os.write(self._descriptor, data) :]


def answered(environments: Environments, request: "list[Any]") -> str:
    """The answer to a request, or the error that an environment raised."""
    number, episode, operation, argument = request
    try:
        text = environments.answer(episode, operation, argument)
        if len(text) > LONGEST:
            raise ValueError(f"{operation} returned {len(text)} bytes, more than {LONGEST}")
        return f"[{number},{text}]"
    except BaseException as error:  # an environment may raise anything; it breaks this episode only
        return f"[{number},null,{json.dumps(_one_line(error))}]"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:2000]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def run_episode(environments: Environments, requests: "queue.SimpleQueue[Any]", answers: Answers) -> None:
    """The thread of one episode."""
    while True:
        request = requests.get()
        answers.add(answered(environments, request))
        if request[2] == "close":
            return


def main() -> None:
    """Answer requests until the pool closes the pipe."""
    root, requests, descriptor = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for inherited in (requests, descriptor):
        os.set_inheritable(inherited, False)
    os.register_at_fork(after_in_child=lambda: (os.close(requests), os.close(descriptor)))
    lines, answers = open(requests, "rb", buffering=1 << 16, closefd=False), Answers(descriptor)
    try:
        find_ours(root)
        environments = Environments(**json.loads(lines.readline()))
        answers.write([f"[0,{environments.answer(0, 'describe', None)}]"])
    except BaseException as error:
        answers.write([f"[0,null,{json.dumps(_one_line(error))}]"])
        os._exit(1)
    threads: "dict[int, queue.SimpleQueue[Any]]" = {}
    for line in lines:
        batch = json.loads(line)
        if environments.quick:
            answers.write([answered(environments, request) for request in batch])
            continue
        for request in batch:
            episode, operation = request[1], request[2]
            if episode == 0:
                answers.add(answered(environments, request))
                continue
            if operation == "open":
                threads[episode] = queue.SimpleQueue()
                arguments = (environments, threads[episode], answers)
                threading.Thread(target=run_episode, args=arguments, daemon=True).start()
            threads[episode].put(request)
            if operation == "close":
                del threads[episode]
    os._exit(0)


if __name__ == "__main__":
    main()
