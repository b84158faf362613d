"""A stand-in for ``StructuredModel``: answers are made by functions, the checks are those of the real one."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trace_jax.llm.errors import AnswerRefused
from trace_jax.llm.prompts import Prompt

Answers = Callable[[str, list[str]], dict[str, Any]]  # from the user's message and the faults so far

PAGE = re.compile(r"^(T\d+) \((.*?)\): (passed|FAILED)", re.MULTILINE)


@dataclass
class StandIn:
    """Answers by stage; an answer with faults is asked for once more."""

    answers: dict[str, Answers]
    asked: list[tuple[str, int, Prompt]] = field(default_factory=list)

    async def ask(self, prompt: Prompt, form: Any, *, stage: str, seed: int, check: Callable[[Any], Sequence[str]]):
        faults: list[str] = []
        for _ in range(2):
            self.asked.append((stage, seed, prompt))
            made = self.answers[stage](prompt.messages[-1]["content"], faults)
            try:
                answer = form.model_validate(made)
            except ValueError as error:
                faults = [str(error)]
                continue
            faults = list(check(answer))
            if not faults:
                return answer
        raise AnswerRefused(f"stand-in: stage {stage}: {faults[0]}", faults)


def pages(text: str) -> dict[str, tuple[str, bool]]:
    """Label of each page → id of the episode, and whether it passed."""
    return {label: (name, outcome == "passed") for label, name, outcome in PAGE.findall(text)}


def dictionary(text: str) -> list[str]:
    """The capabilities of a request for labels, in its order."""
    return re.findall(r"^- (\w+): ", text.split("The agent's policy")[0], re.MULTILINE)


def labels(text: str, judge: Callable[[str, bool, str], str]) -> dict[str, Any]:
    """All labels that a request wants, by ``judge(id, passed, capability)``."""
    return {
        "episodes": [
            {
                "episode": label,
                "labels": [
                    {"capability": name, "label": judge(*found, name), "evidence": "3"} for name in dictionary(text)
                ],
            }
            for label, found in pages(text).items()
        ]
    }
