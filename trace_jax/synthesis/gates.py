"""The validity gates of MISSION "Synthesis": what must hold before anybody trains in an environment.

``run_gates`` runs them in this process; ``isolated.run_isolated`` in another one with a time limit.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator

from trace_jax.contract.trajectory import Check, Message, Tool, ToolCall
from trace_jax.environments.calls import call_error
from trace_jax.synthesis.designer import GeneratedEnvironment
from trace_jax.synthesis.probes import Episode, Policy, always, at_random, calling, look_around, play, solve, spoil

TRIVIAL = 0.05  # most that doing nothing and refusing may earn on average
CHANCE = 0.1  # most that calling tools at random may earn on average: a few tools and ids are sometimes hit
STREAMS = 16  # of random calls for each seed
DISTINCT = 0.9  # least share of seeds whose episodes differ

Factory = Callable[[], GeneratedEnvironment]


def run_gates(
    make: Factory, tools: tuple[Tool, ...], results: Mapping[str, dict[str, Any]], seeds: Sequence[int]
) -> tuple[Check, ...]:
    """All gates, each a check that says what was found. ``tools`` and ``results`` are the target's shapes.

    An environment that raises propagates: to its author that says more than a failed gate.
    """
    solved = {seed: play(make(), seed, solve) for seed in seeds}
    around = {seed: play(make(), seed, look_around(np.random.default_rng([1, seed]))) for seed in seeds}
    return (
        _deterministic(make, solved),
        _seeds_differ(solved),
        _tools_of_target(make(), tools),
        _solution_earns_one(solved),
        _earns_nothing("do_nothing", make, seeds, always("Done.")),
        _earns_nothing("always_refuse", make, seeds, always("I cannot do that.")),
        _random(make, seeds),
        _wrong_change_costs(make, seeds),
        _bad_calls_answered(make, seeds),
        _results_of_target(results, [*solved.values(), *around.values()]),
        _no_leak(solved, around, [tool.name for tool in tools]),
    )


def fingerprints(make: Factory, seeds: Sequence[int]) -> list[str]:
    """What every solved episode shows; equal wherever and whenever it is computed."""
    return [play(make(), seed, solve).fingerprint() for seed in seeds]


def _check(name: str, problems: Sequence[str], fine: str) -> Check:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Check(name=name, passed=not problems, detail=problems[0] + more if problems else fine)


def _deterministic(make: Factory, solved: dict[int, Episode]) -> Check:
    again = make()  # one environment for all seeds, in another order: nothing may be carried over
    differ = [
        f"seed {seed} gave another episode the second time"
        for seed in reversed(solved)
        if play(again, seed, solve).fingerprint() != solved[seed].fingerprint()
    ]
    return _check("deterministic", differ, f"{len(solved)} seeds played twice alike")


def _seeds_differ(solved: dict[int, Episode]) -> Check:
    distinct = len({episode.fingerprint() for episode in solved.values()})
    detail = f"{distinct} different episodes from {len(solved)} seeds"
    return _check("seeds_differ", [detail] if distinct < DISTINCT * len(solved) else [], detail)


def _tools_of_target(environment: GeneratedEnvironment, tools: tuple[Tool, ...]) -> Check:
    known = {tool.name: tool for tool in tools}
    problems = [f"{tool.name} is no tool of the target" for tool in environment.tools if tool.name not in known]
    problems += [
        f"{tool.name} differs from the target's"
        for tool in environment.tools
        if tool.name in known and tool != known[tool.name]
    ]
    if not environment.tools:
        problems.append("no tools")
    return _check("tools_of_target", problems, ", ".join(tool.name for tool in environment.tools))


def _solution_earns_one(solved: dict[int, Episode]) -> Check:
    problems = [
        f"seed {seed}: the solution earns {episode.reward:g}{'' if episode.done else ' and does not end the episode'}"
        for seed, episode in solved.items()
        if episode.reward != 1.0 or not episode.done
    ]
    return _check("solution_earns_1", problems, f"on {len(solved)} seeds")


def _earns_nothing(name: str, make: Factory, seeds: Sequence[int], policy: Policy) -> Check:
    return _at_most(name, TRIVIAL, [play(make(), seed, policy).reward for seed in seeds])


def _random(make: Factory, seeds: Sequence[int]) -> Check:
    streams = [(seed, np.random.default_rng([2, seed, stream])) for seed in seeds for stream in range(STREAMS)]
    return _at_most("random", CHANCE, [play(make(), seed, at_random(rng)).reward for seed, rng in streams])


def _at_most(name: str, most: float, rewards: list[float]) -> Check:
    mean = float(np.mean(rewards))
    detail = f"mean reward {mean:.3f} in {len(rewards)} episodes, at most {most} is allowed"
    return _check(name, [] if mean <= most else [detail], detail)


def _wrong_change_costs(make: Factory, seeds: Sequence[int]) -> Check:
    problems, spoilt = [], 0
    for seed in seeds:
        episode = play(make(), seed, spoil(np.random.default_rng([3, seed])))
        extra = [exchange for exchange in episode.exchanges if exchange.changed and _is_probe(exchange.call)]
        spoilt += bool(extra)
        if extra and episode.reward == 1.0:
            problems.append(f"seed {seed}: {extra[0].call.name} {extra[0].call.arguments} on top costs nothing")
    if not spoilt:
        problems.append("no call was found that changes the state")
    return _check("wrong_change_costs", problems, f"on {spoilt} of {len(seeds)} seeds")


def _bad_calls_answered(make: Factory, seeds: Sequence[int]) -> Check:
    environment = make()
    some = (
        ToolCall(id="a", name="no_such_tool", arguments={}),
        ToolCall(id="b", name=environment.tools[0].name, arguments=None, raw_arguments="{"),
        ToolCall(id="c", name=environment.tools[0].name, arguments={"no_such_argument": 1}),
    )
    bad = [call for call in some if call_error(call, environment.tools)]  # a schema may allow any argument

    def policy(environment: GeneratedEnvironment, episode: Episode) -> Iterator[Message]:
        yield calling(*bad)
        yield from environment.solution()

    problems = []
    for seed in seeds:
        episode = play(make(), seed, policy)
        answers = [exchange.result for exchange in episode.exchanges[: len(bad)]]
        told = [answer.tool_call_id for answer in answers if "error" in (answer.content or "").lower()]
        if told != [call.id for call in bad]:
            wanted = ", ".join(call.id for call in bad)
            problems.append(f"seed {seed}: of calls {wanted} only {told} got an error")
    return _check("bad_calls_answered", problems, "unknown tools, malformed and wrong arguments get an error each")


def _results_of_target(results: Mapping[str, dict[str, Any]], episodes: list[Episode]) -> Check:
    validators = {name: Draft202012Validator(schema) for name, schema in results.items()}
    problems, count = [], 0
    for exchange in (exchange for episode in episodes for exchange in episode.exchanges):
        name, content = exchange.call.name, exchange.result.content
        count += 1
        try:
            fits = name in validators and validators[name].is_valid(json.loads(content or ""))
        except ValueError:
            fits = False
        if not fits:
            problems.append(f"{name} answered {content!r}, which the target's does not")
    return _check("results_of_target", problems, f"{count} results have the target's shape")


def _no_leak(solved: dict[int, Episode], around: dict[int, Episode], names: Sequence[str]) -> Check:
    """A result leaks if it names a tool (an instruction), or if it alone holds all arguments of a deciding call.

    Deciding are the calls of the solution that change the state. Arguments that the user or the asking call had said
    are no leak by themselves: at least one must be new.
    """
    problems = []
    for seed in solved:
        deciding = [exchange.call for exchange in solved[seed].exchanges if exchange.changed]
        for exchange in (*solved[seed].exchanges, *around[seed].exchanges):
            content = exchange.result.content or ""
            known = f"{solved[seed].user} {json.dumps(exchange.call.arguments)}"
            problems += [f"seed {seed}: {exchange.call.name} names the tool {n}" for n in names if _holds(content, n)]
            for call in deciding:
                values = [
                    value if isinstance(value, str) else json.dumps(value) for value in (call.arguments or {}).values()
                ]
                if all(_holds(content, v) for v in values) and not all(_holds(known, v) for v in values):
                    problems.append(f"seed {seed}: {exchange.call.name} returns all of {call.name} {call.arguments}")
    return _check("no_leak", problems, "no result holds an instruction, or all arguments of a deciding call")


def _holds(text: str, words: str) -> bool:
    start = text.find(words)
    while start >= 0:
        end = start + len(words)
        if not text[max(start - 1, 0) : start].isalnum() and not text[end : end + 1].isalnum():
            return True
        start = text.find(words, start + 1)
    return False


def _is_probe(call: ToolCall) -> bool:
    return call.id.startswith("probe_")
