"""All checks of a target."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from typing import Any

from trace_jax.contract.trajectory import Split
from trace_jax.environments.checks.finding import Finding, judged
from trace_jax.environments.checks.quick import answers_fit, plays, static_findings
from trace_jax.environments.checks.scripted import Played, Player, at_random, bad_calls, do_nothing, play
from trace_jax.environments.protocol import Target, Task
from trace_jax.environments.settings import TargetSettings
from trace_jax.environments.splits import SPLITS

DETERMINISM = 8  # tasks of each split that are played again, here and in another process
_NAMED = 6  # tasks that are named in a line
_TELLING = ("error", "invalid")  # an answer with one of these words tells of an error, also to the analysis
_TRIVIAL = {  # script → what it means that it passes a task
    "do-nothing": "an agent passes these tasks if it does nothing: keep that in mind when you read scores",
    "random": "these tasks can be passed by chance",
}
_SECONDS = 600.0  # for the other process

Progress = Callable[[int, int], None]  # episodes done, of all


def check_all(target: Target, settings: TargetSettings, tasks: int, progress: Progress) -> Iterator[Finding]:
    """The findings, the static ones first. At most ``tasks`` tasks of each split are played.

    ``settings`` are those that the target was opened by: another process opens it again.
    """
    static = list(static_findings(target, settings.environment))
    yield from static
    if any(finding.verdict == "fail" and finding.check != "splits disjoint" for finding in static):
        return
    chosen = {split: target.tasks(split)[:tasks] for split in SPLITS}
    scripts = {"do-nothing": do_nothing, "random": at_random(), "bad calls": bad_calls}
    played: dict[tuple[str, Split], list[Played]] = {(kind, split): [] for kind in scripts for split in SPLITS}
    total = sum(len(chosen[split]) for _, split in played)
    for (kind, split), group in played.items():
        for task in chosen[split]:
            group.append(play(partial(target.environment, split), task, scripts[kind]))
            progress(sum(map(len, played.values())), total)
    episodes = list(chain(*played.values()))
    yield plays(episodes)
    yield answers_fit(episodes, target.results)
    yield bad_calls_answered([episode for split in SPLITS for episode in played["bad calls", split]])
    yield deterministic(target, settings, chosen)
    yield no_leaks(target, chosen)
    if hasattr(target.environment("train"), "solution"):
        yield solved(target, chosen)
    for kind, remedy in _TRIVIAL.items():
        for split in SPLITS:
            yield score(f"{kind}, {split}", remedy, played[kind, split], len(target.tasks(split)))
    steps, seconds = sum(episode.steps for episode in episodes), sum(episode.seconds for episode in episodes)
    detail = f"{steps / seconds:,.0f} steps/s, {len(episodes) / seconds:,.0f} episodes/s, one after the other"
    yield Finding("speed", "ok", detail)


def bad_calls_answered(episodes: Sequence[Played]) -> Finding:
    """Whether unknown tools and arguments that are no JSON get an error for an answer."""
    exchanges = [(episode.task, *exchange) for episode in episodes for exchange in episode.exchanges]
    problems = [
        f"task {task!r}: a bad call of {call.name} was answered {(answer.content or '')[:60]!r}, which tells no error"
        for task, call, answer in exchanges
        if not any(word in (answer.content or "").lower() for word in _TELLING)
    ]
    remedy = "answer as trace_jax.environments.call_error words it, so that an agent can mend its call"
    return judged("bad calls answered", problems, f"{len(exchanges)} bad calls", remedy)


def fingerprints(target: Target, chosen: Mapping[Split, Sequence[Task]]) -> list[str]:
    """A digest of an episode with random calls on the first tasks of each split."""
    return [
        play(partial(target.environment, split), task, at_random(1)).fingerprint()
        for split, listed in chosen.items()
        for task in listed[:DETERMINISM]
    ]


def deterministic(target: Target, settings: TargetSettings, chosen: Mapping[Split, Sequence[Task]]) -> Finding:
    """Whether the same task gives the same episode, again in this process and in another one."""
    remedy = "draw from a generator seeded by the task alone; no clock, no global state, no order of a set or of hash()"
    first = fingerprints(target, chosen)
    names = [f"{split} task {task!r}" for split, listed in chosen.items() for task in listed[:DETERMINISM]]
    again = fingerprints(target, chosen)
    problems = [
        f"{who} differs when it is played again" for who, a, b in zip(names, first, again, strict=True) if a != b
    ]
    request = {"settings": asdict(settings), "chosen": {split: list(listed) for split, listed in chosen.items()}}
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "trace_jax.environments.checks.other_process"]
    try:
        other = subprocess.run(
            command, input=json.dumps(request), env=environment, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        return judged("deterministic", [f"another process is not through after {_SECONDS:g} s"], "", remedy)
    if other.returncode != 0:
        last = (other.stderr.strip().splitlines() or [f"exit status {other.returncode}"])[-1]
        return judged("deterministic", [f"another process could not play it: {last}"], "", remedy)
    for who, ours, theirs in zip(names, first, json.loads(other.stdout), strict=True):
        if ours != theirs and not problems:
            problems.append(f"{who} differs in another process")
    return judged("deterministic", problems, f"{len(names)} episodes, in two processes", remedy)


def no_leaks(target: Target, chosen: Mapping[Split, Sequence[Task]]) -> Finding:
    """Whether two episodes that take turns are what each of them is alone."""
    problems, count = [], 0
    for split, listed in chosen.items():
        for one, other in zip(listed[:DETERMINISM:2], (listed[1:DETERMINISM:2] or listed[:1]), strict=False):
            make = partial(target.environment, split)
            alone = [play(make, one, at_random(2)), play(make, other, at_random(3))]
            players = [Player(make, one, at_random(2)), Player(make, other, at_random(3))]
            while any([player.advance() for player in players]):
                pass
            count += 1
            for player, played in zip(players, alone, strict=True):
                if player.played.fingerprint() != played.fingerprint():
                    problems.append(f"{split} task {played.task!r} differs while another episode is played")
    remedy = "keep all state in the environment object: no class attribute, no module variable, no shared list"
    return judged("episodes apart", problems, f"{count} pairs took turns", remedy)


def solved(target: Target, chosen: Mapping[Split, Sequence[Task]]) -> Finding:
    """Whether the environment's own solution earns 1."""
    problems, count = [], 0
    for split, listed in chosen.items():
        for task in listed:
            environment: Any = target.environment(split)
            played = play(lambda: environment, task, lambda *_: iter(environment.solution()))  # noqa: B023
            count += 1
            if played.outcome is None or played.outcome.reward != 1.0:
                earned = f"earns {played.outcome.reward:g}" if played.outcome else f"cannot be played: {played.error}"
                problems.append(f"{split} task {task!r}: its solution {earned}")
    return judged("solutions earn 1", problems, f"{count} tasks", "mend the solution, or the grader")


def score(check: str, remedy: str, episodes: Sequence[Played], listed: int) -> Finding:
    """What a trivial script earns in the episodes, of ``listed`` tasks; the tasks that it passes are named."""
    rewards = {episode.task: episode.outcome.reward for episode in episodes if episode.outcome is not None}
    if not rewards:
        return Finding(check, "fail", "no episode was graded", "see the line 'episodes play'")
    passed = [task for task, reward in rewards.items() if reward == 1.0]
    named = ", ".join(map(repr, passed[:_NAMED])) + (", …" if len(passed) > _NAMED else "")
    detail = f"mean {sum(rewards.values()) / len(rewards):.3f}, passes {len(passed)} of {len(rewards)}"
    detail += f" (the target has {listed})" if listed > len(episodes) else ""
    if len(passed) == len(rewards):
        return Finding(check, "fail", detail, "the grader passes an agent that does nothing of use")
    return Finding(check, "note", f"{detail}: {named}", remedy) if passed else Finding(check, "ok", detail)
