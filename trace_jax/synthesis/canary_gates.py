"""Canaries: sequences of messages whose reward is known before they are played.

On each seed, with the solution of the episode as the start:

- its last deciding call is dropped; one argument of that call is another one; the replies are sent without any call;
  the solution of another seed is sent. Each must earn less than 1.
- each reply has a few words more. That must still earn 1: the reward is for what was done, not for the wording.

A deciding call is one that changes the graded state. A canary that leaves the same state as the solution is no canary.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trace_jax.contract.trajectory import Check, Message, ToolCall
from trace_jax.synthesis.probes import Exchange, ScriptedEpisode, play, sending
from trace_jax.synthesis.prompt_gates import Factory, summarised

CHANGED = 3  # arguments of the last deciding call that are changed, one after the other

Canary = tuple[str, Sequence[Message]]  # what was done to the solution, and the messages


def canaries(make: Factory, solved: Mapping[int, ScriptedEpisode]) -> Check:
    """``solved`` are the solved episodes by seed."""
    problems, played = [], Counter[str]()
    values = _values(solved.values())
    right = {seed: episode for seed, episode in solved.items() if episode.reward == 1.0}
    for seed, episode in right.items():
        for what, messages in (*_wrong(episode, values), *of_another_seed(seed, right)):
            found = play(make(), seed, sending(messages))
            if found.state == episode.state:
                continue
            played[what.partition(":")[0]] += 1
            if found.reward >= 1.0:
                problems.append(f"seed {seed}: {what}, and it earns {found.reward:g}")
        reworded = play(make(), seed, sending([_reworded(message) for message in episode.sent]))
        if reworded.reward < 1.0:
            problems.append(
                f"seed {seed}: the solution with a few more words in each reply earns {reworded.reward:g}, not 1"
            )
    kinds = ", ".join(f"{count} × {what}" for what, count in sorted(played.items()))
    return summarised("canaries", problems, f"none is paid: {kinds or 'no solution has a deciding call'}")


def of_another_seed(seed: int, solved: Mapping[int, ScriptedEpisode]) -> Iterator[Canary]:
    """The solution of the next seed with other deciding calls."""
    seeds = list(solved)
    at = seeds.index(seed)
    for other in (*seeds[at + 1 :], *seeds[:at]):
        if _calls(solved[other].deciding) != _calls(solved[seed].deciding):
            yield f"the solution of another seed is sent: of {other}", solved[other].sent
            return


def spelled(call: ToolCall) -> str:
    """A call as feedback shows it."""
    return f"{call.name} {call.arguments}"


def _wrong(episode: ScriptedEpisode, values: Mapping[tuple[str, str], Sequence[Any]]) -> Iterator[Canary]:
    if not episode.deciding:
        return
    last = episode.deciding[-1].call
    at = max(number for number, message in enumerate(episode.sent) if last in message.tool_calls)
    before, deciding, after = episode.sent[:at], episode.sent[at], episode.sent[at + 1 :]
    yield f"the last deciding call is dropped: {spelled(last)}", [*before, *after]
    for name, value in _others(last, values):
        changed = last.model_copy(update={"arguments": {**(last.arguments or {}), name: value}})
        calls = tuple(changed if call == last else call for call in deciding.tool_calls)
        message = deciding.model_copy(update={"tool_calls": calls})
        yield f"one argument is changed: {spelled(changed)} for {spelled(last)}", [*before, message, *after]
    yield "the replies alone are sent", [message for message in episode.sent if not message.tool_calls]


def _others(call: ToolCall, values: Mapping[tuple[str, str], Sequence[Any]]) -> Iterator[tuple[str, Any]]:
    """Arguments of ``call`` with another value, which the same argument has in a solution. Free text is left alone."""
    count = 0
    for name, value in (call.arguments or {}).items():
        other = next((each for each in values[call.name, name] if each != value), None)
        if other is None and isinstance(value, int) and not isinstance(value, bool):
            other = value + 1
        if other is not None and count < CHANGED:
            count += 1
            yield name, other


def _values(episodes: Any) -> dict[tuple[str, str], list[Any]]:
    """The values of each argument in all solutions: identifiers, single words and numbers."""
    found: dict[tuple[str, str], list[Any]] = {}
    for episode in episodes:
        for exchange in episode.exchanges:
            for name, value in (exchange.call.arguments or {}).items():
                seen = found.setdefault((exchange.call.name, name), [])
                if not isinstance(value, dict | list | None) and " " not in str(value) and value not in seen:
                    seen.append(value)
    return found


def _reworded(message: Message) -> Message:
    if message.tool_calls or not message.content:
        return message
    return message.model_copy(update={"content": f"Sure. {message.content} Is there anything else?"})


def _calls(exchanges: Sequence[Exchange]) -> list[str]:
    return sorted(repr((each.call.name, sorted((each.call.arguments or {}).items(), key=repr))) for each in exchanges)
