"""Trains the gate on labelled synthetic prompts. The report's figures are of prompts that the gate has not seen."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from scipy.special import expit

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.trajectory import Message, Tool
from trace_jax.errors import UserError
from trace_jax.routing import logistic
from trace_jax.routing.features import PromptReader
from trace_jax.routing.gate import Gate, Pooling, pool

HELD_OUT = 5  # one example in five measures the gate, and nothing else
FOLDS = 4  # of the rest, to choose pooling, l2 and temperature
L2 = (1e-3, 1e-2, 1e-1)
LEAST = 10  # examples an adapter, and of the base


class TooFewPrompts(UserError):
    """An adapter, or the base, has too few distinct prompts to learn a gate from."""


@dataclass(frozen=True)
class LabelledPrompt:
    """The first request of a conversation, and the adapters that it needs (none: the base serves)."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    adapters: tuple[str, ...]


@dataclass(frozen=True)
class GateReport:
    """How well the gate does on its held-out examples; its probabilities are calibrated by ``temperature``."""

    choices: tuple[str, ...]
    pooling: Pooling
    l2: float
    temperature: float  # already part of the gate's weights
    train: int
    held_out: int
    accuracy: float  # share of prompts with exactly the right adapters at a probability above one half
    negative_log_likelihood: float  # nats, mean over prompts and adapters
    calibration_error: float


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
        UserError: a label that is no adapter.
        TooFewPrompts: an adapter, or the base, has fewer than ``LEAST`` distinct prompts.
    """
    adapters = choices[1:]
    labelled: dict[tuple[int, ...], frozenset[str]] = {}
    for example in examples:
        for adapter in example.adapters:
            if adapter not in adapters:
                raise UserError(f"prompt labelled {adapter!r}; the gate chooses among {', '.join(adapters)}")
        labelled[tuple(renderer.prompt(example.messages, example.tools))] = frozenset(example.adapters)
    needed = np.array([[adapter in label for adapter in adapters] for label in labelled.values()], bool)
    counts = dict(zip(adapters, needed.sum(axis=0), strict=True)) | {"the base": (~needed.any(axis=1)).sum()}
    for name, found in counts.items():
        if found < LEAST:
            raise TooFewPrompts(f"{found} distinct prompts for {name!r}; at least {LEAST} are needed: add some")
    return fit_gate(reader.pooled(list(labelled)), needed, choices, base, seed)


def fit_gate(
    features: np.ndarray, needed: np.ndarray, choices: tuple[str, ...], base: str, seed: int
) -> tuple[Gate, GateReport]:
    """Fit on ``features`` ``[N, 2, D]`` (mean, last) and ``needed`` bool ``[N, A]``, one adapter a column.

    Pooling and l2 are those of the least cross-validated negative log-likelihood on the training examples; the
    temperature is fitted to the same out-of-fold logits; the held-out examples only measure.
    """
    if not np.isfinite(features).all():
        raise UserError("prompt hidden states hold NaN or infinity; check the base model's weights")
    sets = np.unique(needed, axis=0, return_inverse=True)[1].reshape(-1)
    held = logistic.stratified_folds(sets, HELD_OUT, seed) == 0
    seen, fold = needed[~held], logistic.stratified_folds(sets[~held], FOLDS, seed + 1)
    best = None
    poolings: tuple[Pooling, ...] = get_args(Pooling)
    for pooling, l2 in itertools.product(poolings, L2):
        pooled = pool(features[~held], pooling)
        logits = np.stack([logistic.out_of_fold_logits(pooled, column, l2, fold) for column in seen.T], axis=1)
        temperature = logistic.calibrate(logits, seen)
        loss = logistic.negative_log_likelihood(logits, seen, temperature)
        if best is None or loss < best[0]:
            best = loss, pooling, l2, temperature
    assert best is not None
    _, pooling, l2, temperature = best
    pooled = pool(features[~held], pooling)
    mean, scale = logistic.standardisation(pooled)
    fits = [logistic.fit((pooled - mean) / scale, column, l2) for column in seen.T]
    weight, bias = np.stack([w for w, _ in fits], axis=1), np.array([b for _, b in fits])
    gate = Gate(base, choices, pooling, mean, scale, weight / temperature, bias / temperature)

    logits, truth = gate.logits(features[held]), needed[held]
    report = GateReport(
        choices=choices,
        pooling=pooling,
        l2=l2,
        temperature=temperature,
        train=int((~held).sum()),
        held_out=int(held.sum()),
        accuracy=float(((logits > 0) == truth).all(axis=1).mean()),
        negative_log_likelihood=logistic.negative_log_likelihood(logits, truth),
        calibration_error=logistic.expected_calibration_error(expit(logits), truth),
    )
    return gate, report
