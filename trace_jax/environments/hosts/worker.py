"""The worker process: runs the environments of one target, and answers requests. It needs pydantic and nothing else.

    python worker.py ROOT REQUESTS ANSWERS

ROOT is the directory of the package ``trace_jax``; the other two are file descriptors. The first line of requests is
``{"path": "module:name", "parameters": {…}}``; any other is a JSON list of ``[id, episode, operation, argument]``. A
line of answers is a list of ``[id, value]``, ``[id, null, error]`` or ``[id, null, error, extra]``. What environments
print goes to standard output and standard error, never to these lines.

Each episode has a thread of its own, so that a step may block. A target that declares ``quick = True`` promises that no
step blocks: its episodes then share the main thread, which is three times as fast.
"""

import importlib
import importlib.util
import json
import os
import queue
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

LONGEST = 16 << 20  # characters of an answer; a longer one breaks its episode
TOLD = ("name", "results", "version", "episodes_per_worker")  # attributes of a target that the pool asks for


def find_ours(root: str) -> None:
    """Make ``trace_jax`` importable from ``root``, but none of its neighbours, which may belong to another Python."""
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


def _attach(package: str, submodules: Any = (), submod_attrs: Any = None) -> Any:
    """``lazy_loader.attach``, for a Python that lacks it."""
    modules = {name: module for module, names in (submod_attrs or {}).items() for name in names}
    public = sorted({*modules, *(submodules or ())})

    def get(name: str) -> Any:
        if name not in public:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{modules.get(name, name)}")
        return getattr(module, name) if name in modules else module

    return get, lambda: public, public


def load(path: str, parameters: dict[str, Any]) -> Any:
    """What makes the target or the environments: a class or factory, with its parameters."""
    from trace_jax.registry import Registry

    targets = Registry("target", "trace_jax.targets", {})
    environments = Registry("environment", "trace_jax.environments", {})
    known = environments if path in environments.names() and path not in targets.names() else targets
    return known.factory(path, parameters)


class Environments:
    """The target of this process, and its open episodes."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        from trace_jax.contract.trajectory import Message
        from trace_jax.environments.protocol import Observation, Outcome

        self._message, self._observation, self._outcome = Message, Observation, Outcome
        made = factory()
        self._target: Any = made if hasattr(made, "tasks") else None
        self._make = (lambda split: factory()) if self._target is None else made.environment
        self.quick = bool(getattr(made, "quick", False))
        self._open: dict[int, Any] = {}

    def answer(self, episode: int, operation: str, argument: Any) -> str:
        """The JSON text of one answer."""
        if operation == "step":
            environment = self._open[episode]
            observation = environment.step(self._message.model_validate(argument, strict=False))
            return self._observed(observation, _extra(environment))
        if operation == "reset":
            environment = self._open[episode]
            before = environment.tools
            observed = self._observed(environment.reset(argument), _extra(environment))
            tools = "" if environment.tools is before else f',"tools":{_parts(environment.tools)}'
            return f"{observed[:-1]}{tools}}}"
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
        if operation in ("tasks", "do_nothing"):
            return json.dumps(list(getattr(self._target, operation)(argument)))
        assert operation == "describe", operation
        return json.dumps(self._described())

    def extra(self, episode: int) -> str:
        """The JSON of what an environment tells of itself, with or in place of an error; empty if it is nothing."""
        try:
            return _extra(self._open.get(episode))
        except BaseException as error:
            return json.dumps({"extra_fault": _one_line(error)})

    def _described(self) -> dict[str, Any]:
        if self._target is None:
            return {"kind": "environment"}
        told = {name: getattr(self._target, name) for name in TOLD if hasattr(self._target, name)}
        return {"kind": "target", **told, "knows_do_nothing": hasattr(self._target, "do_nothing")}

    def _observed(self, value: Any, extra: str) -> str:
        if not isinstance(value, self._observation):
            raise TypeError(f"expected an Observation of Messages, got {str(value)[:80]!r}")
        told = f',"extra":{extra}' if extra else ""
        return f'{{"messages":{_parts(value.messages)},"done":{"true" if value.done else "false"}{told}}}'

    def _graded(self, value: Any) -> str:
        if not isinstance(value, self._outcome):
            raise TypeError(f"expected an Outcome, got {str(value)[:80]!r}")
        rest = json.dumps({"reward": value.reward, "components": value.components, "extra": value.extra})
        return f'{rest[:-1]},"checks":{_parts(value.checks)}}}'


def _parts(parts: Any) -> str:
    return f"[{','.join([part.model_dump_json() for part in parts])}]"


def _extra(environment: Any) -> str:
    """The JSON of ``protocol.Telling``; empty if it is nothing."""
    told = getattr(environment, "extra", None)
    return json.dumps(told) if told else ""


class Answers:
    """Writes lines of answers. Answers that are ready at the same moment share a line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._process = descriptor, os.getpid()
        self._ready: queue.SimpleQueue[str] = queue.SimpleQueue()
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
        """Write the answers in one line, or in one each if they are long."""
        if os.getpid() != self._process:
            os._exit(0)  # an environment forked, and this is the child: the lines belong to its parent
        if len(answers) > 1 and sum(map(len, answers)) > 1 << 20:
            for answer in answers:
                self.write([answer])
            return
        data = memoryview(f"[{','.join(answers)}]\n".encode())
        while data:
            data = data[os.write(self._descriptor, data) :]


def answered(environments: Environments, request: "list[Any]") -> str:
    """The answer to a request, or the error that an environment raised."""
    number, episode, operation, argument = request
    try:
        text = environments.answer(episode, operation, argument)
        if len(text) > LONGEST:
            raise ValueError(f"{operation} returned {len(text)} characters, more than {LONGEST}")
        return f"[{number},{text}]"
    except BaseException as error:  # an environment may raise anything; it breaks this episode only
        extra = environments.extra(episode)
        return f"[{number},null,{json.dumps(_one_line(error))}{extra and ','}{extra}]"


def _one_line(error: BaseException) -> str:
    text, kind = " ".join(str(error).split())[:2000], type(error).__name__
    if kind == "UserError":
        return text
    return f"{kind}: {text}" if text else kind


def run_episode(environments: Environments, requests: "queue.SimpleQueue[Any]", answers: Answers) -> None:
    """The thread of one episode."""
    while True:
        request = requests.get()
        answers.add(answered(environments, request))
        if request[2] == "close":
            return


def close(*descriptors: int) -> None:
    """Let a forked child have no part in the lines, and let it not keep them open after the worker's end."""
    for descriptor in descriptors:
        os.close(descriptor)


def main() -> None:
    """Answer requests until the pool closes the pipe."""
    root, requests, descriptor = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    for inherited in (requests, descriptor):
        os.set_inheritable(inherited, False)
    os.register_at_fork(after_in_child=lambda: close(requests, descriptor))
    lines, answers = open(requests, "rb", buffering=1 << 16, closefd=False), Answers(descriptor)
    try:
        find_ours(root)
        environments = Environments(load(**json.loads(lines.readline())))
        answers.write([f"[0,{environments.answer(0, 'describe', None)}]"])
    except BaseException as error:
        answers.write([f"[0,null,{json.dumps(_one_line(error))}]"])
        os._exit(1)
    threads: dict[int, queue.SimpleQueue[Any]] = {}
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
