"""The checks that every scenario brings: the state is the expected one, and the replies say what they must."""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from trace_jax.contract.trajectory import Check
from trace_jax.environments.kit.parts import parts
from trace_jax.environments.kit.scenario import Request


def state_checks(
    initial: Any, expected: Any, found: Any, changes: Mapping[tuple[str, str], str] = MappingProxyType({})
) -> Iterator[Check]:
    """A check for every part of a state that should have changed, or has changed.

    It has the name of its fields, ``meetings.day``; keys of dictionaries are in the detail. The name begins with the
    kind of the request by which the part should change, if ``changes`` has it: ``move.meetings.day``.
    """
    for name, key, before, wanted, have in parts("", "", initial, expected, found):
        if wanted != before or have != before:
            kind = changes.get((name, key), "")
            yield Check(
                name=f"{kind}.{name}".strip("."),
                passed=wanted == have,
                detail=f"{key}expected {wanted!r}, found {have!r}",
            )


def reply_checks(requests: Sequence[Request], answers: Mapping[int, str]) -> Iterator[Check]:
    """A check for all words that a reply must hold, and one that every request was answered.

    ``answers`` holds what was replied to a request, by its number from 0.
    """
    for number, request in enumerate(requests):
        for words in request.must_say:
            detail = f"request {number + 1}: wanted {words!r}, found {answers.get(number, '')!r}"
            passed = says(answers.get(number, ""), words)
            yield Check(name=f"{request.kind}.reply".strip("."), passed=passed, detail=detail)
    answered = f"{len(answers)} of {len(requests)} requests"
    yield Check(name="answered", passed=len(answers) == len(requests), detail=answered)


def progress(initial: Any, expected: Any, found: Any, requests: Sequence[Request], answers: Mapping[int, str]) -> float:
    """How far the agent came, in [0, 1].

    The share of the parts of the state that should have changed, and of the words that replies should hold, that are as
    they should be. Every other part that changed halves it, and so does a request without a reply.
    """
    done = [says(answers.get(n, ""), words) for n, request in enumerate(requests) for words in request.must_say]
    spoilt = int(len(answers) < len(requests))
    for _, _, before, wanted, have in parts("", "", initial, expected, found):
        if wanted != before:
            done.append(have == wanted)
        elif have != before:
            spoilt += 1
    return (sum(done) / len(done) if done else 1.0) * 0.5**spoilt


def says(text: str, words: str) -> bool:
    """Whether ``text`` contains ``words`` as whole words, in capitals or not."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text, re.IGNORECASE) is not None
