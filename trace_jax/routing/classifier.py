"""The training-free router: the base model itself picks a label, and the labels' log-probabilities are the scores."""

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Protocol

import numpy as np

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.routing import RouteDecision, RouterKind, RouteTable
from trace_jax.contract.trajectory import Message
from trace_jax.errors import UserError
from trace_jax.routing.router import RouteRequest, SingleDecision
from trace_jax.routing.scoring import decide_readable
from trace_jax.routing.select import Best, SelectionPolicy

NONE_OF_THEM = "None of these: an ordinary request that needs no special skill."
INSTRUCTION = (
    "You sort requests to an assistant by the one skill that decides whether the request is handled well. "
    "The skills, each with its label:\n{skills}\nAnswer with the label alone."
)


class LabelReader(Protocol):
    """Reads the base's next token: ``PromptReader`` in this process, or a server that holds the same base."""

    def check_length(self, prompt: Sequence[int]) -> None:
        """Raises UserError for a prompt that is empty or too long to read."""

    def next_logprobs(self, prompts: Sequence[Sequence[int]], token_ids: Sequence[int]) -> np.ndarray:
        """``[N, C]`` float32: log-probability of each of the C ``token_ids`` as the token after each prompt."""
        ...


class ClassifierRouter(SingleDecision):
    """One forward pass of the base over a list of labelled capabilities and the conversation's user turns.

    The label ``A`` stands for the first route and so on; the label after the last route stands for the base. The label
    is read at the start of the answer, so thinking is turned off.

    Raises:
        UserError: more routes than letters, or a label that is not one token of its own in this vocabulary.
    """

    kind: RouterKind = "classifier"

    def __init__(
        self, table: RouteTable, reader: LabelReader, renderer: Renderer, policy: SelectionPolicy | None = None
    ):
        if len(table.routes) >= len(ascii_uppercase):
            raise UserError(
                f"{len(table.routes)} routes; the classifier has labels for {len(ascii_uppercase) - 1}: use the gate"
            )
        self.table, self.reader, self.policy = table, reader, policy or Best()
        self.renderer = renderer.without_thinking()
        letters = ascii_uppercase[: len(table.routes) + 1]
        self.labels = (letters[-1], *letters[:-1])  # in the order of ``choices(table)``: the base first
        self.label_ids = label_tokens(self.renderer, self.labels)

    def decide_batch(self, requests: Sequence[RouteRequest]) -> list[RouteDecision]:
        """One decision a request; a request without user text is undecided."""
        return decide_readable(
            requests,
            self.kind,
            self.table,
            self.policy,
            self._prompt,
            lambda prompts: self.reader.next_logprobs(prompts, self.label_ids),
        )

    def _prompt(self, request: RouteRequest) -> tuple[int, ...]:
        said = "\n".join(m.content for m in request.messages if m.role == "user" and m.content)
        if not said.strip():
            raise UserError("no user message to classify")
        skills = [
            f"{label}: {route.description}" for label, route in zip(self.labels[1:], self.table.routes, strict=True)
        ]
        skills.append(f"{self.labels[0]}: {NONE_OF_THEM}")
        system = Message(role="system", content=INSTRUCTION.format(skills="\n".join(skills)))
        prompt = tuple(self.renderer.prompt((system, Message(role="user", content=said)), ()))
        self.reader.check_length(prompt)
        return prompt


def label_tokens(renderer: Renderer, labels: Sequence[str]) -> tuple[int, ...]:
    """The token of each label as an answer. Raises UserError unless each label is one token, and no two are equal."""
    found: dict[int, str] = {}
    for label in labels:
        tokens = tuple(renderer.assistant(Message(role="assistant", content=label)))
        answer = [token for token in tokens if token not in renderer.stop_token_ids]
        if len(answer) != 1:
            raise UserError(f"label {label!r} is {len(answer)} tokens in this vocabulary, not one; use the gate router")
        if answer[0] in found:
            raise UserError(f"labels {found[answer[0]]!r} and {label!r} are the same token; use the gate router")
        found[answer[0]] = label
    return tuple(found)
