"""Profiles an update: its share of the core's matmul peak, and the self time of each function.

    JAX_PLATFORMS=cpu taskset -c 0 python -m benchmarks.update_profile --shape=A

The program prints one JSON line. JAX's profiler times every operation of the compiled programs. An operation counts for
the function of this project that contains it, according to the stack frames in XLA's dump of the programs.
"""

import collections
import glob
import json
import os
import re
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import jax
from jax.profiler import ProfileData

from benchmarks.flops import matmul_peak, update_flops
from benchmarks.peers import common
from benchmarks.peers.ours_step import Step

_STEPS, _TRACED = 8, 4
Place = tuple[str, bool]  # "file.function", and whether the operation belongs to the backward pass


def sources(dump: str) -> dict[tuple[str, str], Place]:
    """The function of each operation (module, name) of the dumped programs."""
    found = {}
    for path in glob.glob(f"{dump}/*cpu_after_optimizations.txt"):
        text = Path(path).read_text()
        module = text[len("HloModule ") :].split(",", 1)[0]
        places = _places(text)
        for name, rest in re.findall(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*)$", text, re.MULTILINE):
            frame = re.search(r"stack_frame_id=(\d+)", rest)
            operation = re.search(r'op_name="([^"]*)"', rest)
            place = places.get(frame.group(1), "other") if frame else "other"
            found[module, name] = place, operation is not None and "transpose(" in operation.group(1)
    return found


def _places(text: str) -> dict[str, str]:
    """Stack frame id → the innermost "file.function" of this project, from the tables at the head of a dump."""

    def table(name: str, row: str) -> dict[str, tuple[str, ...]]:
        section = re.search(rf"^{name}\n((?:\d.*\n)*)", text, re.MULTILINE)
        rows = re.findall(rf"^(\d+) {row}", section.group(1), re.MULTILINE) if section else []
        return {key: values for key, *values in rows}

    files, functions = table("FileNames", '"(.*)"'), table("FunctionNames", '"(.*)"')
    locations = table("FileLocations", r"{file_name_id=(\d+) function_name_id=(\d+)")
    frames = table("StackFrames", r"{file_location_id=(\d+)(?: parent_frame_id=(\d+))?")
    places = {}
    for frame in frames:
        at, place = frame, "other"
        while at in frames:
            location, parent = frames[at]
            file, function = locations[location]
            if "/trace_jax/" in files[file][0]:
                place = f"{Path(files[file][0]).stem}.{functions[function][0].split('.')[-1]}"
                break
            at = parent if parent != at else ""
        places[frame] = place
    return places


def self_times(directory: str) -> collections.Counter[tuple[str, str]]:
    """Seconds of each operation (module, name), without those of the operations inside it."""
    (path,) = glob.glob(f"{directory}/**/*.xplane.pb", recursive=True)
    seconds: collections.Counter[tuple[str, str]] = collections.Counter()
    for plane in ProfileData.from_file(path).planes:
        for line in plane.lines:
            events = []
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    events.append((event.start_ns, -event.duration_ns, (stats["hlo_module"], stats["hlo_op"])))
            stack: list[tuple[float, tuple[str, str]]] = []
            for start, minus, key in sorted(events):
                while stack and stack[-1][0] <= start:
                    stack.pop()
                if stack:
                    seconds[stack[-1][1]] += minus / 1e9
                seconds[key] -= minus / 1e9
                stack.append((start - minus, key))
    return seconds


def main() -> None:
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    dump = tempfile.TemporaryDirectory()
    # JAX reads this when it makes its back-end, at the first array.
    os.environ["XLA_FLAGS"] = f"--xla_dump_to={dump.name} --xla_dump_hlo_as_text " + os.environ.get("XLA_FLAGS", "")
    shape = common.SHAPES[common.arguments().shape]
    step = Step(shape)
    tokens, completions = step.rollout(0)
    rewards = step.rewards(completions)
    times = []
    for _ in range(common.WARMUP + _STEPS):
        started = time.process_time()
        step.update(tokens, completions, rewards)
        times.append(time.process_time() - started)
    update = statistics.median(times[common.WARMUP :])
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            for _ in range(_TRACED):
                step.update(tokens, completions, rewards)
        seconds = self_times(directory)
    origin = sources(dump.name)
    parts: dict[str, dict[str, float]] = collections.defaultdict(lambda: {"forward": 0.0, "backward": 0.0})
    for (module, name), spent in seconds.items():
        place, backward = origin.get((module, name), ("other", False))
        if module == "jit_apply":
            place = "optimizer"
        elif place == "other":  # added by the compiler, such as the zeros and copies of a scan's residuals
            place = f"compiler: {name.split('.')[0]}"
        parts[place]["backward" if backward else "forward"] += spent / _TRACED
    flops, peak = update_flops(shape), matmul_peak()
    line = {
        "update_cpu_seconds": update,
        "flops": flops,
        "matmul_peak_flops": peak,
        "share_of_peak": sum(flops.values()) / update / peak,
        "traced_seconds": sum(seconds.values()) / _TRACED,
        "parts": dict(sorted(parts.items(), key=lambda item: -sum(item[1].values()))),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
