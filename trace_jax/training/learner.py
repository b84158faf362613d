"""Adapters that learn together on one frozen base: weights, optimisers, and the update on a batch."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from trace_jax.models.decoder import Decoder, params_of
from trace_jax.models.execution import Execution, execution_for
from trace_jax.models.lora import LoRA, init_lora, select
from trace_jax.models.sharding import check_mesh, shardings
from trace_jax.parallel.mesh import BATCH_AXES, MeshSettings, batch_shards, make_mesh
from trace_jax.parallel.placement import to_host, to_mesh
from trace_jax.training.batch import MicroBatch, micro_batches
from trace_jax.training.flops import attention_tokens
from trace_jax.training.loss import policy_loss_config
from trace_jax.training.sample import Sample
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.staleness import spot_check
from trace_jax.training.step import (
    Program,
    add_up,
    apply_function,
    gradient_function,
    mismatch_function,
    optimizer,
    score_function,
    state_specs,
)
from trace_jax.training.summary import update_metrics

Tree = Any


class Learner:
    """Holds the LoRA ``weights`` of the adapters ``names`` and the ``optimizer_state``.

    Both are plain trees that a checkpoint may replace. Adapters share the base and the passes through it, and nothing
    else: each learns as it would alone. The weights before each of the last ``max_staleness`` updates are kept, because
    stale tokens were sampled with them. With several processes, all call every method.

    Args:
        temperature: of the sampler, above 0.
        seed: of the initial weights.
        names: names of the adapters in errors.
        mesh: where to compute; by default the first local device alone.
        execution: kernels and rematerialisation; by default those of the mesh's platform.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: GRPOConfig,
        *,
        temperature: float,
        seed: int,
        names: Sequence[str] = ("the adapter",),
        mesh: Mesh | None = None,
        execution: Execution | None = None,
    ) -> None:
        mesh = mesh or make_mesh(MeshSettings(data=1), jax.local_devices()[:1])
        check_mesh(decoder.config, mesh)
        platform = mesh.devices.flat[0].platform
        self._config, self._names = config, tuple(names)
        self._program = Program(
            decoder.config,
            mesh,
            execution or execution_for(platform, config.remat),
            config.target_modules,
            temperature,
        )
        self._params = jax.device_put(params_of(decoder), shardings(mesh, self._program.param_specs))
        fresh = init_lora(decoder.config, config.rank, config.alpha, config.target_modules, key=jax.random.key(seed))
        A = len(self._names)
        self._scale = to_mesh(np.repeat(np.asarray(fresh.scale), A), mesh, P())
        self._transformation = optimizer(config.learning_rate, config.warmup_steps, config.max_grad_norm)
        self._fresh = jax.tree.map(np.asarray, fresh.weights)
        self.weights: Tree = jax.tree.map(
            lambda x, spec: to_mesh(np.repeat(x, A, axis=0), mesh, spec), self._fresh, self._program.lora_specs
        )
        init = self._transformation.init
        specs = state_specs(jax.eval_shape(init, self.weights), self.weights, self._program.lora_specs)
        self.optimizer_state: Tree = jax.jit(init, out_shardings=shardings(mesh, specs))(self.weights)
        self._past: deque[Tree] = deque(maxlen=config.max_staleness)

    @property
    def loras(self) -> LoRA:
        """All adapters as they are now."""
        return LoRA(self.weights, self._scale)

    def lora(self, adapter: int = 0) -> LoRA:
        """One adapter (A = 1) as it is now, on the host. With several processes, all have to call it."""
        return jax.tree.map(jnp.asarray, to_host(select(self.loras, adapter)))

    def state(self, adapter: int) -> dict[str, Tree]:
        """What a checkpoint of one adapter holds. It does not depend on which other adapters learn with it."""
        held = {"weights": self.weights, "optimizer": self.optimizer_state}
        return jax.tree.map(lambda x: x[adapter : adapter + 1], held)

    def reset(self, adapter: int) -> None:
        """Put one adapter back to its initial weights and a fresh optimiser state."""
        mesh, specs = self._program.mesh, self._program.lora_specs
        weights = jax.tree.map(lambda x, spec: to_mesh(x, mesh, spec), self._fresh, specs)
        self.load_state(adapter, {"weights": weights, "optimizer": jax.jit(self._transformation.init)(weights)})

    def load_state(self, adapter: int, state: dict[str, Tree]) -> None:
        """Go on from a state that ``state`` returned."""
        held = {"weights": self.weights, "optimizer": self.optimizer_state}

        def put(held: Tree, own: Tree) -> Tree:
            return jax.tree.map(lambda x, part: x.at[adapter : adapter + 1].set(part), held, own)

        where = jax.tree.map(lambda x: x.sharding, held)
        new = jax.jit(put, out_shardings=where)(held, state)
        self.weights, self.optimizer_state = new["weights"], new["optimizer"]
        self._past.clear()

    def update(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        """Take ``num_iterations`` optimiser steps on ``samples``; return the mean metrics of every adapter.

        An adapter without a sample stays as it is and has no metrics; the update counts for it all the same.

        Raises:
            FloatingPointError: a log-probability, the loss or a gradient is NaN or infinite; the message names it and
                the adapter. The weights are then as they were before that optimiser step.
        """
        before = self.weights
        metrics = self._learn(samples) if samples else [{}] * len(self._names)
        self._past.append(before)
        return metrics

    def _learn(self, samples: Sequence[Sample]) -> list[dict[str, float]]:
        config, program = self._config, self._program
        compared = self._compare(samples)
        batches = self._batches(samples, config.micro_batch_tokens, config.row_tokens)
        # With several optimiser steps, the weights that sampled score the batch first: later steps have newer ones.
        old = self._scores(batches, True) if config.num_iterations > 1 else [None] * len(batches)
        reference = self._scores(batches, False) if config.beta > 0 else [None] * len(batches)
        gradients = gradient_function(program, policy_loss_config(config))
        active = np.isin(np.arange(len(self._names)), [sample.adapter for sample in samples])
        totals: dict[str, np.ndarray] = {}
        for _ in range(config.num_iterations):
            result = None
            for micro, old_M, reference_M in zip(batches, old, reference, strict=True):
                part = gradients(self._params, self.loras, micro, old_M, reference_M)
                result = part if result is None else add_up(result, part)
            assert result is not None
            totals = _join(_join(totals, self._apply(*result, active)), compared)
        for name in ("loss", "grad_norm"):
            totals[name] = totals[name] / config.num_iterations
        return [
            update_metrics({name: float(value[index]) for name, value in totals.items()}) if active[index] else {}
            for index in range(len(self._names))
        ]

    def _batches(self, samples: Sequence[Sample], tokens: int, row_tokens: int | None) -> list[MicroBatch]:
        config, program = self._config, self._program
        shards, costly = batch_shards(program.mesh), attention_tokens(program.model)
        return [
            to_mesh(micro, program.mesh, P(BATCH_AXES))
            for micro in micro_batches(
                samples,
                micro_batch_tokens=tokens,
                loss_type=config.loss_type,
                max_completion_length=config.max_completion_length,
                shards=shards,
                attention_tokens=costly,
                row_tokens=row_tokens,
            )
        ]

    def _compare(self, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
        """Terms of the mismatch of some stale tokens, under the weights that sampled them."""
        row_tokens, checked = spot_check(samples, self._config.micro_batch_tokens)
        totals: dict[str, np.ndarray] = {}
        for micro in self._batches(checked, row_tokens, row_tokens) if checked else ():
            for age in sorted({int(age) for sample in checked for age in np.unique(sample.staleness_T)} - {0}):
                known = age <= len(self._past)  # older tokens were recorded before the run, by the base
                lora = LoRA(self._past[-age], self._scale) if known else self.loras
                mismatch = mismatch_function(self._program, known)
                totals = _join(totals, mismatch(self._params, lora, micro, age))
        return totals

    def _scores(self, batches: Sequence[MicroBatch], adapted: bool) -> list[jax.Array]:
        score = score_function(self._program, adapted)
        return [score(self._params, self.loras, micro) for micro in batches]

    def _apply(self, gradient: Tree, terms: dict[str, jax.Array], active: np.ndarray) -> dict[str, np.ndarray]:
        apply = apply_function(self._transformation)
        weights, state, norm = apply(self.weights, self.optimizer_state, gradient, active)
        values = {name: np.asarray(value, np.float64) for name, value in {**terms, "grad_norm": norm}.items()}
        self._check_finite(values, gradient)
        self.weights, self.optimizer_state = weights, state
        return values

    def _check_finite(self, values: dict[str, np.ndarray], gradient: Tree) -> None:
        """Raise FloatingPointError for the first quantity that is not finite, in the order of computation."""
        for term, what in (
            ("delta", "log-probability"), ("stale_delta", "log-probability"), ("loss", "loss"), ("grad_norm", ""),
        ):  # fmt: skip
            bad = ~np.isfinite(values[term])
            if not bad.any():
                continue
            problem = f"{what} is {values[term][bad][0]}"
            if term == "grad_norm":
                leaves = jax.tree.leaves_with_path(gradient)
                paths = [path for path, leaf in leaves if not bool(jnp.isfinite(leaf).all())]
                where = jax.tree_util.keystr(paths[0], simple=True, separator=".") if paths else "all weights together"
                problem = f"gradient of {where} is not finite"
            whose = ", ".join(name for name, its in zip(self._names, bad, strict=True) if its)
            raise FloatingPointError(
                f"{whose}: {problem}: lower learning_rate, or look at the last metrics for what grew"
            )


def _join(totals: Mapping[str, np.ndarray], terms: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The terms added to ``totals`` in float64: sums, and maxima of ``max_*``."""
    joined = dict(totals)
    for name, term in terms.items():
        value = np.asarray(term, np.float64)
        before = joined.get(name, np.zeros_like(value))
        joined[name] = np.maximum(before, value) if name.startswith("max_") else before + value
    return joined
