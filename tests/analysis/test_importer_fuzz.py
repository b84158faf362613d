"""Seeded fuzz of the importers and of what reads their trajectories: our own errors, or trajectories that hold up."""

import copy
import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from mutations import damage_value, dumps, mutations
from tau2_results import result_file, spoken_results
from test_importer_chat import EPISODE
from test_importer_inspect import HEADER, sample
from test_importer_toolsandbox import CONVERSATION, row

from trace_jax.analysis.compact import compact
from trace_jax.analysis.detectors.library import DETECTORS
from trace_jax.analysis.episode import read_episodes
from trace_jax.analysis.importers import inspect_log, openai_chat, tau2_bench, tau_bench, toolsandbox
from trace_jax.analysis.patterns.library import find_patterns
from trace_jax.contract.reading import read_json
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import TraceError

AIRLINE = Path(__file__).parent / "fixtures" / "tau_bench_airline.json"


def load_tau(path: Path) -> tuple[Trajectory, ...]:
    return tau_bench.load(path, "airline", "m")


def tau_file() -> list[Any]:
    return json.loads(AIRLINE.read_text())[:3]


def load_chats(path: Path) -> tuple[Trajectory, ...]:
    """A file that holds a JSON array, read as a log with an element a line."""
    try:
        lines = b"".join(dumps(found) + b"\n" for found in json.loads(path.read_bytes()))
    except (ValueError, RecursionError, TypeError):
        lines = path.read_bytes()
    log = path.with_suffix(".jsonl")
    log.write_bytes(lines)
    try:
        return openai_chat.load(log, "shop", "m")
    except TraceError as error:
        raise TraceError(str(error).replace(str(log), str(path))) from None


def load_inspect(path: Path) -> tuple[Trajectory, ...]:
    """A file that holds a JSON array, each element what Inspect's reader gives of a sample."""
    try:
        samples = list(read_json(path, "restore it"))
    except TypeError as error:
        raise TraceError(f"{path}: Inspect reads files itself: {type(error).__name__}") from None
    return inspect_log.trajectories_of(str(path), HEADER, samples, "")


def load_toolsandbox(path: Path) -> tuple[Trajectory, ...]:
    """A file that holds the rows, each with its conversation, which is written where ToolSandbox has it."""
    run = path.parent / "run"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    try:
        rows = list(json.loads(path.read_bytes()))
    except (ValueError, RecursionError, TypeError):
        rows = [path.name]
    for found in rows:
        with suppress(TypeError, KeyError, AttributeError, OSError, ValueError, RecursionError):
            conversation, place = dumps(found["conversation"]), run / "trajectories" / found["name"]
            place.mkdir(parents=True)
            (place / "conversation.json").write_bytes(conversation)
    with suppress(RecursionError):
        (run / toolsandbox.SUMMARY).write_bytes(dumps({"per_scenario_results": rows}))
    try:
        return toolsandbox.load(run, "m")
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from None


FORMATS: dict[str, tuple[Callable[[], Any], Callable[[Path], tuple[Trajectory, ...]]]] = {
    "tau_bench": (tau_file, load_tau),
    "tau2_bench": (result_file, tau2_bench.load),
    "tau2_bench with ticks": (spoken_results, tau2_bench.load),
    "openai_chat": (lambda: [EPISODE | {"id": name} for name in "abc"], load_chats),
    "inspect": (lambda: [sample(number) for number in range(3)], load_inspect),
    "toolsandbox": (lambda: [row(name, 0.5) | {"conversation": CONVERSATION} for name in "abc"], load_toolsandbox),
}


def hold_up(trajectories: tuple[Trajectory, ...], export: Callable[[], Any]) -> None:
    """Every trajectory can be written and read back, shown, and searched by every detector."""
    for trajectory in trajectories:
        assert Trajectory.model_validate_json(trajectory.model_dump_json()) == trajectory
        assert trajectory.broken or 0 <= trajectory.reward <= 1
        compact(trajectory)
    assert len({trajectory.id for trajectory in trajectories}) == len(trajectories)
    json.dumps(export())
    graded = tuple(trajectory for trajectory in trajectories if not trajectory.broken)
    episodes = read_episodes(graded)
    for episode in episodes:
        for detector in DETECTORS.values():
            list(detector.find(episode))
    find_patterns(episodes, [trajectory.checks for trajectory in graded])


def export_of(name: str, trajectories: tuple[Trajectory, ...]) -> Callable[[], Any]:
    if name == "tau_bench":
        return lambda: [tau_bench.export(trajectory) for trajectory in trajectories]
    return (lambda: tau2_bench.export(trajectories)) if name.startswith("tau2") else lambda: None


def fuzz(path: Path, name: str, count: int) -> None:
    make, load = FORMATS[name]
    read = 0
    for damaged in mutations(json.dumps(make()).encode(), count, seed=1):
        path.write_bytes(damaged)
        try:
            found = load(path)
        except TraceError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            continue
        hold_up(found, export_of(name, found))
        read += 1
    assert read > count / 3


def episodes_of(whole: Any) -> list[Any]:
    return whole if isinstance(whole, list) else whole["simulations"]


def fuzz_one_episode(path: Path, name: str, count: int) -> None:
    """Damage within one episode never costs another one, whatever it is."""
    make, load = FORMATS[name]
    whole, rng = make(), random.Random(2)
    path.write_text(json.dumps(whole))
    sound, broken = load(path), 0
    for _ in range(count):
        damaged = copy.deepcopy(whole)
        episodes = episodes_of(damaged)
        number = rng.randrange(1, len(episodes))
        episodes[number] = next(iter(damage_value([episodes[number]], rng)), None)
        path.write_bytes(dumps(damaged))
        found = load(path)
        assert len(found) == len(sound)
        assert [*found[:number], *found[number + 1 :]] == [*sound[:number], *sound[number + 1 :]]
        hold_up(found, export_of(name, found))
        broken += found[number].broken and not sound[number].broken
    assert broken > count / 20


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_result_files_give_trajectories_or_our_own_errors(name: str, tmp_path: Path) -> None:
    fuzz(tmp_path / "file.json", name, 150)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_within_an_episode_costs_that_episode_at_most(name: str, tmp_path: Path) -> None:
    fuzz_one_episode(tmp_path / "file.json", name, 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_twenty_thousand_damaged_result_files(name: str, tmp_path: Path) -> None:
    fuzz(tmp_path / "file.json", name, 5000)
    fuzz_one_episode(tmp_path / "file.json", name, 1700)
