"""The whole GRPO step (rollout, reward, update) compared with TRL and Tunix, in CPU-seconds of one pinned core.

    make bench-peers
    python -m benchmarks.train_step [--shapes=A,B,C] [--rounds=3] [--steps=12] [--core=0] [--json=runs/train_step.json]

Every run is a separate process on the same core, in turn (ours, TRL, Tunix, ours, …), with one thread and an empty
compilation cache. All systems do the same work: a random float32 Qwen3 (``benchmarks/peers/common.py``), one prompt, 8
completions of full length, LoRA of rank 16 on q, k, v and o, and the clipped on-policy loss. For each shape the table
shows medians of CPU-seconds (a step, its rollout, the first step with its compilation) and of peak memory, with their
ratios to the better peer. Then follow the share of the core's matmul peak that our update reaches, and its profile.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import app, flags
from rich.console import Console
from rich.table import Table

from benchmarks.peers import common

SHAPES = flags.DEFINE_list("shapes", list(common.SHAPES), "of A, B, C (see benchmarks/peers/common.py)")
ROUNDS = flags.DEFINE_integer("rounds", 3, "runs of every system, in turn", lower_bound=1)
STEPS = flags.DEFINE_integer("steps", 12, f"steps a run; the first {common.WARMUP} are not measured", lower_bound=5)
CORE = flags.DEFINE_integer("core", 0, "the core that every run is pinned to")
JSON = flags.DEFINE_string("json", "runs/train_step.json", "file for the figures")

OURS, PEERS = "ours", ("TRL", "Tunix")
MODULES = {OURS: "ours_step", "TRL": "trl_step", "Tunix": "tunix_step"}
PYTHONS = {OURS: sys.executable, "TRL": ".venv-trl/bin/python", "Tunix": ".venv-tunix/bin/python"}
GOALS = {"A": 0.5, "B": 0.4, "C": 0.5}  # as shares of the better peer's CPU-seconds a step
SHOWN_PARTS = 12

Run = dict[str, Any]


def run(python: str, module: str, shape: str, core: int, *arguments: str) -> Run:
    """Run a module on ``core`` with an empty compilation cache. Returns its last line of output, which is JSON."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [python, "-m", module, f"--shape={shape}", *arguments],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            capture_output=True,
            text=True,
        )
    if done.returncode:
        sys.exit(f"{module} on shape {shape} ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def check(line: Run, shape: str) -> None:
    """End the program if a run did less work than the others."""
    length, parameters = common.SHAPES[shape].completion, line["lora_parameters"]
    if parameters != common.LORA_PARAMETERS or abs(line["completion_tokens"] - length) > 0.01 * length:
        sys.exit(
            f"{line['system']} on shape {shape} trained {parameters} LoRA parameters on completions of "
            f"{line['completion_tokens']:.1f} tokens, not {common.LORA_PARAMETERS} on {length}: fix its script"
        )


def summary(lines: list[Run]) -> dict[str, float]:
    """Medians over all measured steps, or over the runs."""
    return {
        "step": statistics.median(seconds for line in lines for seconds in line["cpu_seconds"]),
        "rollout": statistics.median(line["parts"]["rollout"] for line in lines),
        "first_step": statistics.median(line["first_step_seconds"] for line in lines),
        "peak_rss_mib": statistics.median(line["peak_rss_mib"] for line in lines),
    }


def comparison(systems: dict[str, dict[str, float]]) -> Table:
    """One row for each system. Ratios are to the better peer in each column; those of first steps to Tunix."""
    best = {name: min(systems[peer][name] for peer in PEERS) for name in systems[OURS]}
    best["first_step"] = systems["Tunix"]["first_step"]
    table = Table("", "step, CPU-s", "rollout", "first step, CPU-s", "peak RSS, MiB")
    for name, values in systems.items():
        cells = [
            f"{values[column]:.{digits}f} ({values[column] / best[column]:.2f} ×)"
            for column, digits in (("step", 3), ("rollout", 3), ("first_step", 1), ("peak_rss_mib", 0))
        ]
        table.add_row(name, *cells)
    return table


def peak_line(profile: Run) -> str:
    """A line that compares the update with the matmul peak."""
    flops, update = profile["flops"], profile["update_cpu_seconds"]
    work = ", ".join(f"{name} {value / 1e9:.2f}" for name, value in flops.items())
    return (
        f"our update: {update:.3f} CPU-s for {sum(flops.values()) / 1e9:.2f} GFLOP ({work}), "
        f"{profile['share_of_peak']:.0%} of the core's {profile['matmul_peak_flops'] / 1e9:.0f} GFLOP/s in float32"
    )


def profile_table(profile: Run) -> Table:
    """The functions that take most of the update."""
    table = Table("function", "forward, ms", "backward, ms", "share")
    total = sum(sum(part.values()) for part in profile["parts"].values())
    for name, part in list(profile["parts"].items())[:SHOWN_PARTS]:
        milliseconds = [f"{part[half] * 1e3:.1f}" for half in ("forward", "backward")]
        table.add_row(name, *milliseconds, f"{sum(part.values()) / total:.0%}")
    return table


def main(_: list[str]) -> None:
    for python in PYTHONS.values():
        if not Path(python).exists():
            sys.exit(f"{python} does not exist: run `make bench-peers` first")
    if unknown := [shape for shape in SHAPES.value if shape not in common.SHAPES]:
        sys.exit(f"shape {unknown[0]!r} is unknown: choose of {', '.join(common.SHAPES)}")
    console, results = Console(width=140), {}
    for shape in SHAPES.value:
        lines: dict[str, list[Run]] = {name: [] for name in MODULES}
        for number in range(ROUNDS.value):
            for name, module in MODULES.items():
                steps = f"--steps={STEPS.value}"
                lines[name].append(run(PYTHONS[name], f"benchmarks.peers.{module}", shape, CORE.value, steps))
                check(lines[name][-1], shape)
                step = statistics.median(lines[name][-1]["cpu_seconds"])
                console.print(f"shape {shape}, round {number + 1} of {ROUNDS.value}: {name} {step:.3f} CPU-s a step")
        profile = run(sys.executable, "benchmarks.update_profile", shape, CORE.value)
        systems = {name: summary(found) for name, found in lines.items()}
        results[shape] = {"systems": systems, "profile": profile, "runs": lines}
        sizes = common.SHAPES[shape]
        console.print(
            f"\nshape {shape}: prompt {sizes.prompt}, {common.GROUP} completions of {sizes.completion}, vocabulary "
            f"{sizes.vocab}; the goal is {GOALS[shape]} of the better peer's step"
        )
        console.print(comparison(systems), peak_line(profile), profile_table(profile), sep="\n")
    console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores: other load slows all systems")
    target = Path(JSON.value)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    app.run(main)
