"""The gate on leaks: no result of a tool tells the answer, or what to do next."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trace_jax.contract.trajectory import Check
from trace_jax.synthesis.probes import ScriptedEpisode
from trace_jax.synthesis.prompt_gates import summarised


def no_leak(solved: dict[int, ScriptedEpisode], around: dict[int, ScriptedEpisode], names: Sequence[str]) -> Check:
    """A result leaks if it names another tool (an instruction), or if it alone holds all arguments of a deciding call.

    The deciding calls are those of the solution that change the state. At least one of the arguments must be new: not
    named by the user, nor by a call up to there, and no identifier, which has to be looked up.
    """
    problems = []
    for seed in solved:
        deciding = [exchange.call for exchange in solved[seed].exchanges if exchange.changed]
        for episode in (solved[seed], around[seed]):
            known = solved[seed].user
            for exchange in episode.exchanges:
                content = exchange.result.content or ""
                known += f" {json.dumps(exchange.call.arguments)}"
                problems += [
                    f"seed {seed}: {exchange.call.name} names the tool {name}"
                    for name in names
                    if name != exchange.call.name and _holds(content, name)
                ]
                problems += [
                    f"seed {seed}: {exchange.call.name} returns all of {call.name} {call.arguments}"
                    for call in deciding
                    if _tells(content, call.arguments or {}, known)
                ]
    return summarised("no_leak", problems, "no result holds an instruction, or all arguments of a deciding call")


def _tells(content: str, arguments: Mapping[str, Any], known: str) -> bool:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in arguments.items()}
    new = [name for name, text in texts.items() if not _holds(known, text) and not name.lower().endswith("id")]
    return bool(new) and all(_holds(content, text) for text in texts.values())


def _holds(text: str, words: str) -> bool:
    start = text.find(words)
    while start >= 0:
        end = start + len(words)
        if not text[max(start - 1, 0) : start].isalnum() and not text[end : end + 1].isalnum():
            return True
        start = text.find(words, start + 1)
    return False
