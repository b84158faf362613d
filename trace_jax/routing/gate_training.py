"""Train the gate on labelled synthetic prompts; the figures it reports are of prompts that it has not seen."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from trace_jax.contract.record import ContractError
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.rollout.chat import Renderer
from trace_jax.routing import logistic
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import Gate, Pooling, pool
from trace_jax.routing.select import softmax

HELD_OUT = 5  # one example in five measures the gate, and nothing else
FOLDS = 4  # of the rest, to choose pooling, l2 and temperature
L2 = (1e-2, 1e-1, 1.0)
LEAST = 10  # examples a choice


@dataclass(frozen=True)
class LabelledPrompt:
    """The first request of a conversation, and the adapter it belongs to (``""``: the base)."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    adapter: str


@dataclass(frozen=True)
class GateReport:
    """How well the gate does on its held-out examples, after dividing its logits by ``temperature``."""

    choices: tuple[str, ...]
    pooling: Pooling
    l2: float
    temperature: float  # belongs into the route table
    train: int
    held_out: int
    accuracy: float
    negative_log_likelihood: float  # nats
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]  # [true choice][chosen choice], over the held-out examples


def train_gate(
    examples: Sequence[LabelledPrompt],
    choices: tuple[str, ...],
    base: str,
    reader: PromptReader,
    renderer: Renderer,
    seed: int,
) -> tuple[Gate, GateReport]:
    """A gate over ``choices`` (as ``select.choices(table)``), deterministic in its arguments.

    Repeated prompts are used once, so that none stands on both sides of the held-out split.

    Raises:
        ContractError: a label that is no choice; a choice with fewer than ``LEAST`` distinct prompts.
    """
    labelled: dict[tuple[tuple[int, ...], str], None] = {}
    for example in examples:
        if example.adapter not in choices:
            raise ContractError(
                f"prompt labelled {example.adapter!r}; the gate chooses among {', '.join(choices[1:])} and '' (base)"
            )
        labelled[tuple(renderer.prompt(example.messages, example.tools)), example.adapter] = None
    labels = np.array([choices.index(adapter) for _, adapter in labelled], np.int64)
    counts = Counter(labels.tolist())
    for index, name in enumerate(choices):
        if counts[index] < LEAST:
            raise ContractError(
                f"{counts[index]} distinct prompts for {name or 'the base'!r}; at least {LEAST} are needed: add some"
            )
    return fit_gate(reader.pooled([prompt for prompt, _ in labelled]), labels, choices, base, seed)


def fit_gate(
    features: np.ndarray, labels: np.ndarray, choices: tuple[str, ...], base: str, seed: int
) -> tuple[Gate, GateReport]:
    """Fit on ``features`` ``[N, 2, D]`` (mean, last) and ``labels`` ``[N]``.

    Pooling and l2 are those of the least cross-validated negative log-likelihood on the training examples; the
    temperature is fitted to the same out-of-fold logits; the held-out examples only measure.
    """
    if not np.isfinite(features).all():
        raise ContractError("prompt hidden states hold NaN or infinity; check the base model's weights")
    classes = len(choices)
    held = logistic.stratified_folds(labels, HELD_OUT, seed) == 0
    seen, fold = labels[~held], logistic.stratified_folds(labels[~held], FOLDS, seed + 1)
    best = None
    poolings: tuple[Pooling, ...] = get_args(Pooling)
    for pooling, l2 in itertools.product(poolings, L2):
        logits = logistic.out_of_fold_logits(pool(features[~held], pooling), seen, classes, l2, fold)
        temperature = logistic.calibrate(logits, seen)
        loss = logistic.negative_log_likelihood(logits, seen, temperature)
        if best is None or loss < best[0]:
            best = loss, pooling, l2, temperature
    assert best is not None
    _, pooling, l2, temperature = best
    pooled = pool(features[~held], pooling)
    mean, scale = logistic.standardisation(pooled)
    weight, bias = logistic.fit((pooled - mean) / scale, seen, classes, l2)
    gate = Gate(base=base, choices=choices, pooling=pooling, mean=mean, scale=scale, weight=weight, bias=bias)

    logits = gate.logits(features[held])
    probabilities, truth = softmax(logits, temperature), labels[held]
    chosen = probabilities.argmax(axis=1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (truth, chosen), 1)
    report = GateReport(
        choices=choices,
        pooling=pooling,
        l2=l2,
        temperature=temperature,
        train=int((~held).sum()),
        held_out=int(held.sum()),
        accuracy=float((chosen == truth).mean()),
        negative_log_likelihood=logistic.negative_log_likelihood(logits, truth, temperature),
        calibration_error=logistic.expected_calibration_error(probabilities, truth),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )
    return gate, report
