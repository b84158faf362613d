"""The learned gate: a linear layer on the base's pooled hidden state of a prompt predicts the needed adapters."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from etils import epath
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy.special import logsumexp

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.routing import RouteDecision, RouterKind, RouteTable
from trace_jax.contract.storage import PathLike, replace_bytes
from trace_jax.errors import UserError
from trace_jax.routing.features import PromptReader
from trace_jax.routing.router import RouteRequest, SingleDecision
from trace_jax.routing.scoring import Prompt, decide_readable
from trace_jax.routing.select import Best, SelectionPolicy, choices
from trace_jax.routing.table import check_base

Pooling = Literal["mean", "last", "mean_last"]
FORMAT = "trace_jax gate 3"
_METADATA = "gate"
ARRAYS = ("mean", "scale", "weight", "bias")


def pool(features: np.ndarray, pooling: Pooling) -> np.ndarray:
    """``[N, 2, D]`` (mean, last) → ``[N, F]`` float64: one of the two, or both side by side (F = 2 D)."""
    wide = np.asarray(features, np.float64)
    pooled: np.ndarray = {"mean": wide[:, 0], "last": wide[:, 1], "mean_last": wide.reshape(len(wide), -1)}[pooling]
    return pooled


@dataclass(frozen=True)
class Gate:
    """``P(adapter a is needed) = sigmoid(z_a)``, ``z = ((pool(features) - mean) / scale) @ weight + bias``; float64.

    The adapters are independent of each other, since a conversation may need several of them, or none: the base.
    """

    base: str  # revision of the model whose hidden states it reads
    choices: tuple[str, ...]  # the base (``""``) first, then A adapters
    pooling: Pooling
    mean: np.ndarray  # [F]
    scale: np.ndarray  # [F]
    weight: np.ndarray  # [F, A]
    bias: np.ndarray  # [A]

    def __post_init__(self) -> None:
        for name in ARRAYS:
            if not np.isfinite(getattr(self, name)).all():
                raise UserError(f"gate {name} holds NaN or infinity; train the gate again")
        width, adapters = self.weight.shape
        if (
            adapters != len(self.choices) - 1
            or self.bias.shape != (adapters,)
            or not self.mean.shape == self.scale.shape == (width,)
        ):
            shapes = ", ".join(f"{name} {getattr(self, name).shape}" for name in ARRAYS)
            raise UserError(f"gate of {shapes} does not fit {len(self.choices)} choices; train the gate again")

    def logits(self, features: np.ndarray) -> np.ndarray:
        """``[N, 2, D]`` → z ``[N, A]`` float64."""
        pooled = pool(features, self.pooling)
        if pooled.shape[1] != len(self.mean):
            raise UserError(
                f"gate reads {len(self.mean)} features, the model gives {pooled.shape[1]}: it is another model's gate"
            )
        logits: np.ndarray = (pooled - self.mean) / self.scale @ self.weight + self.bias
        return logits

    def log_weights(self, features: np.ndarray) -> np.ndarray:
        """``[N, 2, D]`` → ``[N, 1 + A]``, rows of which the exponentials sum to 1, ordered as ``choices``.

        The base's is the probability that no adapter is needed, ``Π (1 - P_a)``; the adapters share the rest in
        proportion to their P.
        """
        logits = self.logits(features)
        needed = -np.logaddexp(0.0, -logits)
        base = -np.logaddexp(0.0, logits).sum(axis=1, keepdims=True)
        rest = np.log(-np.expm1(np.minimum(base, -1e-300)))
        weights: np.ndarray = np.hstack([base, rest + needed - logsumexp(needed, axis=1, keepdims=True)])
        return weights


def save_gate(path: PathLike, gate: Gate) -> None:
    """Write ``gate`` as one safetensors file, whole or not at all. The same gate always gives the same bytes."""
    told = {"format": FORMAT, "base": gate.base, "choices": gate.choices, "pooling": gate.pooling}
    arrays = {name: np.ascontiguousarray(getattr(gate, name)) for name in ARRAYS}
    # safetensors writes several keys of metadata in random order.
    replace_bytes(path, save(arrays, {_METADATA: json.dumps(told, sort_keys=True)}))


def load_gate(path: PathLike, base: str) -> Gate:
    """The gate in ``path``. Raises UserError when it is missing, damaged, not finite, or another base's."""
    try:
        data = epath.Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such gate; train it, or correct the route table's path") from None
    try:
        arrays = load(data)
        metadata = _metadata(data)
        if metadata.get("format") != FORMAT:
            raise UserError(
                f"{path}: format {metadata.get('format')!r}; this build reads {FORMAT!r}: train the gate again"
            )
        if metadata["base"] != base:
            raise UserError(f"{path}: gate of base {metadata['base']}, the model is {base}: train it on this base")
        if metadata["pooling"] not in get_args(Pooling):
            raise UserError(f"{path}: unknown pooling {metadata['pooling']!r}; train the gate again")
        return Gate(
            base=metadata["base"],
            choices=tuple(metadata["choices"]),
            pooling=metadata["pooling"],
            **{name: arrays[name] for name in ARRAYS},
        )
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a gate ({error}); train it again") from None


def _metadata(data: bytes) -> dict[str, Any]:
    """What ``save_gate`` told. Of a file of another program or format: all string metadata.

    A safetensors file begins with 8 bytes of header length (little endian), then comes the header as JSON.
    """
    size = int.from_bytes(data[:8], "little")
    strings: dict[str, str] = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    told: dict[str, Any] = json.loads(strings[_METADATA]) if _METADATA in strings else strings
    return told


class GateRouter(SingleDecision):
    """Weighs every choice with one forward pass of the base over the conversation's own prompt.

    Raises:
        UserError: table or gate of another base, or choices that differ from the table's.
    """

    kind: RouterKind = "gate"

    def __init__(
        self,
        table: RouteTable,
        gate: Gate,
        base: str,
        reader: PromptReader,
        renderer: Renderer,
        policy: SelectionPolicy | None = None,
    ):
        check_base(table, base)
        if gate.base != base:
            raise UserError(f"gate of base {gate.base}, the model is {base}: train the gate on this base")
        if gate.choices != choices(table):
            raise UserError(
                f"gate chooses among {gate.choices[1:]}, the table lists {choices(table)[1:]}: train it for this table"
            )
        self.table, self.gate, self.policy = table, gate, policy or Best()
        self.reader, self.renderer = reader, renderer

    def decide_batch(self, requests: Sequence[RouteRequest]) -> list[RouteDecision]:
        """One decision a request."""
        return decide_readable(requests, self.kind, self.table, self.policy, self._prompt, self._score)

    def _prompt(self, request: RouteRequest) -> Prompt:
        prompt = tuple(self.renderer.prompt(request.messages, request.tools))
        self.reader.check_length(prompt)
        return prompt

    def _score(self, prompts: Sequence[Prompt]) -> np.ndarray:
        return self.gate.log_weights(self.reader.pooled(prompts))
