"""The hint gate: a hint is there, and it does not give the answer. Whether it helps, rollouts tell (differential)."""

import re
from collections.abc import Mapping, Sequence

from trace_jax.contract.trajectory import Check
from trace_jax.environments.protocol import Hinting
from trace_jax.environments.random_calls import words_in
from trace_jax.synthesis.probes import ScriptedEpisode
from trace_jax.synthesis.prompt_gates import Factory, summarised

NO_HINT = "it has no hint(): no rollout of it can carry one"


def hint(make: Factory, solved: Mapping[int, ScriptedEpisode]) -> Check:
    """The hint of each seed is a text, and holds no answer of that seed.

    Answers are the arguments of deciding calls, and the numbers and identifiers of the solution's replies. A word that
    is in the hints of all seeds is not the answer of a single one, and what the user says is no answer.
    """
    environment = make()
    if not isinstance(environment, Hinting):
        return Check(name="hint", passed=True, detail=NO_HINT)
    hints = {}
    for seed in solved:
        environment.reset(seed)
        text = environment.hint()
        if not isinstance(text, str):
            return summarised("hint", [f"seed {seed}: hint() returned {text!r}, no text"], "")
        hints[seed] = text
    problems = [f"seed {seed}: the hint is empty" for seed, text in hints.items() if not text.strip()]
    problems += [
        f"seed {seed}: the hint names {answer!r}, which the solution needs and the user does not say: {text!r}"
        for seed, text in hints.items()
        for answer in answers(solved[seed])
        if _names(text, answer) and not all(_names(other, answer) for other in hints.values())
    ]
    different = len(set(hints.values()))
    return summarised("hint", problems, f"{different} different hints for {len(hints)} seeds, none names an answer")


def answers(episode: ScriptedEpisode) -> Sequence[str]:
    """What the solution needs and the user does not say."""
    values = [value for exchange in episode.deciding for value in (exchange.call.arguments or {}).values()]
    said = "\n".join(message.content or "" for message in episode.sent if not message.tool_calls)
    found = [str(value) for value in values if isinstance(value, str | int | float) and not isinstance(value, bool)]
    found += [word for word in words_in(said) if any(character.isdigit() for character in word)]
    return [each for each in dict.fromkeys(found) if each and not _names(episode.user, each)]


def _names(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None
