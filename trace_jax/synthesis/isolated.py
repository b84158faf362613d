"""Runs the gates in two other processes. A hang ends at the time limit, and episodes must be the same in both.

A design with a source is played in a sandbox by each of them; the gates themselves stay outside of it.

python -m trace_jax.synthesis.isolated < request.json > answer.json
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from pydantic import TypeAdapter

from trace_jax.contract.environment import Design
from trace_jax.contract.reading import storable
from trace_jax.contract.trajectory import Check, Tool
from trace_jax.environments.hosts.checks import EnvironmentFault
from trace_jax.environments.registry import environment_factory
from trace_jax.errors import UserError
from trace_jax.sandbox.designs import factory_of_design
from trace_jax.sandbox.sandbox import Sandbox
from trace_jax.sandbox.settings import SandboxSettings
from trace_jax.synthesis.designer import Brief
from trace_jax.synthesis.disjoint import NO_TASKS, Conversations
from trace_jax.synthesis.examples import shortened
from trace_jax.synthesis.gates import fingerprints, run_gates
from trace_jax.synthesis.probes import IN_SEED
from trace_jax.synthesis.prompt_gates import Factory, summarised

DETAIL_CHARACTERS = 1000  # of one check

_CONVERSATIONS = TypeAdapter(Conversations)


def run_isolated(
    design: Design,
    brief: Brief,
    seeds: Sequence[int],
    seconds: float,
    tasks: Conversations = NO_TASKS,
    *,
    sandbox: SandboxSettings | None = None,
) -> tuple[Check, ...]:
    """All gates on ``design``; ``tasks`` are the target's. If the environment raises or hangs, a check fails.

    A design with a source is played in a sandbox with the settings ``sandbox``. Without a source, an entry point
    outside trace_jax fails at once, without being imported.
    """
    try:
        if design.source is None:
            environment_factory(design, brief.own)
    except UserError as error:
        return (Check(name="entry_point", passed=False, detail=str(error)),)
    request = {
        "design": design.model_dump(mode="json"),
        "own": brief.own.model_dump(mode="json"),
        "tools": [tool.model_dump(mode="json") for tool in brief.tools],
        "results": dict(brief.results),
        "seeds": list(seeds),
        "conversations": _CONVERSATIONS.dump_python(tasks, mode="json"),
        "sandbox": asdict(sandbox or SandboxSettings()),
    }
    # Hashes, and so the order of sets, differ between the two processes: no environment may depend on them.
    children = [_start(hash_seed) for hash_seed in ("1", "2")]
    deadline = time.monotonic() + seconds
    try:
        for child, only in zip(children, (False, True), strict=True):
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # the process ended at once; its exit status says why
                child.stdin.write(json.dumps({**request, "only_fingerprints": only}))
                child.stdin.close()
            child.stdin = None
        texts = []
        for child in children:
            out, errors = child.communicate(timeout=max(deadline - time.monotonic(), 0.01))
            if child.returncode != 0:
                detail = f"it raised: {_raised(errors) or f'exit status {child.returncode}'}"
                return (_bounded(Check(name="runs", passed=False, detail=detail)),)
            if not out:
                return (Check(name="runs", passed=False, detail="it ended its process: an environment may not exit"),)
            texts.append(out)
    except subprocess.TimeoutExpired:
        return (Check(name="runs", passed=False, detail=f"not through after {seconds:g} s: it hangs or is too slow"),)
    finally:
        for child in children:
            child.kill()
            child.wait()
    answers = [json.loads(text) for text in texts]
    found, _ = storable(answers[0]["checks"])  # an environment may say anything in them
    checks = tuple(_bounded(Check.model_validate(check)) for check in found)
    return (*checks, same_in_two_processes(seeds, *(answer["fingerprints"] for answer in answers)))


def _bounded(check: Check) -> Check:
    """``check`` without the middle of a detail that quotes too much."""
    return check.replace(detail=shortened(check.detail, DETAIL_CHARACTERS))


def same_in_two_processes(seeds: Sequence[int], first: Sequence[str], second: Sequence[str]) -> Check:
    """Each seed gives the same episode in both processes; ``first`` and ``second`` are their fingerprints."""
    differ = [
        f"seed {seed} is not the same in two processes: it depends on hashes, the clock or the process"
        for seed, mine, other in zip(seeds, first, second, strict=True)
        if mine != other
    ]
    return summarised("same_in_two_processes", differ, f"{len(seeds)} seeds are the same in two processes")


def _raised(errors: str) -> str:
    """The exception in what a process wrote to standard error, and the seed of the episode that raised it."""
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    seed = lines.pop() if lines and lines[-1].startswith(IN_SEED) else ""
    said = lines[-1].removeprefix(f"{EnvironmentFault.__module__}.{EnvironmentFault.__name__}: ") if lines else ""
    return f"{said}{seed and f', {seed}'}"


def _start(hash_seed: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def main() -> None:
    """Read one request from standard input and write the answer to standard output.

    The environment's own output goes to standard error.
    """
    request: dict[str, Any] = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        design, own = (Design.model_validate(request[name]) for name in ("design", "own"))
        sandbox = SandboxSettings(**request["sandbox"])
        seed_of_hashes = int(os.environ["PYTHONHASHSEED"])
        with factory_of_design(design, own, lambda: Sandbox(sandbox, hash_seed=seed_of_hashes)) as make:
            answer = _answer(request, cast(Factory, make))
    json.dump(answer, sys.stdout)


def _answer(request: dict[str, Any], make: Factory) -> dict[str, Any]:
    answer: dict[str, Any] = {"fingerprints": fingerprints(make, request["seeds"])}
    if not request["only_fingerprints"]:
        tools = tuple(Tool.model_validate(tool) for tool in request["tools"])
        tasks = _CONVERSATIONS.validate_python(request["conversations"])
        checks = run_gates(make, tools, request["results"], request["seeds"], tasks)
        answer["checks"] = [check.model_dump(mode="json") for check in checks]
    return answer


if __name__ == "__main__":
    main()
