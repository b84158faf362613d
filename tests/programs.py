"""Programs as a user starts them, without the four seconds that each takes to import JAX and transformers.

A server process has imported all that the programs share; each program is a fork of it, a process of its own. What a
program imports when it starts, how Python ends, and a process that a test has to kill, are tested with ``subprocess``
itself.
"""

import atexit
import functools
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = (
    "flax.nnx",
    "matplotlib.pyplot",
    "openai",
    "optax",
    "orbax.checkpoint",
    "transformers.models.qwen3.configuration_qwen3",
    "transformers.tokenization_utils_tokenizers",
    "trace_jax.pipeline.method",
    "trace_jax.program",
    "trace_jax.session",
    "trace_jax.training.run",
)
SECONDS = 900


def run_program(module: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """``python -m module arguments`` in the root of the project. ``env`` adds to the environment.

    A program that takes longer than ``SECONDS`` is ended by SIGALRM.
    """
    server = _server()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        request = {
            "arguments": [module, *arguments],
            "environment": {**os.environ, **(env or {})},
            "streams": [out.fileno(), err.fileno()],
            "owner": os.getpid(),
        }
        server.stdin.write(f"{json.dumps(request)}\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        out.seek(0), err.seek(0)
        return subprocess.CompletedProcess([module, *arguments], status, out.read(), err.read())


@functools.cache
def _server() -> subprocess.Popen[str]:
    command = [sys.executable, __file__]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # it starts threads when numpy is imported
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
    atexit.register(server.kill)
    return server


def _serve() -> None:
    """Answer each request, a line, with the exit status of the program."""
    sys.path[0] = str(ROOT)
    for name in SHARED:
        import_module(name)
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"{threads} threads: a fork would lose them"
    gc.freeze()  # else each fork copies what it collects
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(**request)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


def _become(arguments: list[str], environment: dict[str, str], streams: list[int], owner: int) -> None:
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(f"/proc/{owner}/fd/{stream}", os.O_WRONLY | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = [arguments[0], *arguments[1:]]
    signal.alarm(SECONDS)
    sys.orig_argv = [sys.executable, "-m", *arguments]
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    # The interpreter ends here as ever, but does not take apart what was imported: that is a second of copied pages.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _serve()
