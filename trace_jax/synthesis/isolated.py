"""Runs the gates in two other processes. A hang ends at the time limit, and episodes must be the same in both.

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

from trace_jax.contract.environment import Design
from trace_jax.contract.trajectory import Check, Tool
from trace_jax.environments.registry import environment_factory
from trace_jax.errors import UserError
from trace_jax.synthesis.designer import Brief
from trace_jax.synthesis.disjoint import NO_TASKS, Conversations
from trace_jax.synthesis.gates import fingerprints, run_gates
from trace_jax.synthesis.prompt_gates import Factory


def run_isolated(
    design: Design, brief: Brief, seeds: Sequence[int], seconds: float, tasks: Conversations = NO_TASKS
) -> tuple[Check, ...]:
    """All gates on ``design``; ``tasks`` are the target's. If the environment raises or hangs, a check fails.

    An entry point outside trace_jax fails at once, without being imported: only a sandbox may run it.
    """
    try:
        environment_factory(design, brief.own)
    except UserError as error:
        return (Check(name="entry_point", passed=False, detail=str(error)),)
    request = {
        "design": design.model_dump(mode="json"),
        "own": brief.own.model_dump(mode="json"),
        "tools": [tool.model_dump(mode="json") for tool in brief.tools],
        "results": dict(brief.results),
        "seeds": list(seeds),
        "conversations": {**asdict(tasks), "digests": sorted(tasks.digests)},
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
                last = (errors.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
                return (Check(name="runs", passed=False, detail=f"it raised: {last}"),)
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
    same = answers[0]["fingerprints"] == answers[1]["fingerprints"]
    checks = tuple(Check.model_validate(check) for check in answers[0]["checks"])
    detail = f"{len(seeds)} seeds are {'the same' if same else 'not the same'} in two processes"
    return (*checks, Check(name="same_in_two_processes", passed=same, detail=detail))


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
        make = cast(Factory, environment_factory(design, own))
        answer: dict[str, Any] = {"fingerprints": fingerprints(make, request["seeds"])}
        if not request["only_fingerprints"]:
            tools = tuple(Tool.model_validate(tool) for tool in request["tools"])
            given = request["conversations"]
            tasks = Conversations(frozenset(given["digests"]), given["tasks"], given["broken"])
            checks = run_gates(make, tools, request["results"], request["seeds"], tasks)
            answer["checks"] = [check.model_dump(mode="json") for check in checks]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
