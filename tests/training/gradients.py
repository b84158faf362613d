"""Gradients of random episodes on a mesh, for comparisons."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from trace_jax.models.decoder import params_of
from trace_jax.models.execution import Execution
from trace_jax.models.lora import init_lora
from trace_jax.models.sharding import check_mesh, shardings
from trace_jax.parallel.mesh import BATCH_AXES, MeshSettings, batch_shards, make_mesh
from trace_jax.parallel.placement import to_host, to_mesh
from trace_jax.training.batch import micro_batches
from trace_jax.training.loss import policy_loss_config
from trace_jax.training.sample import Sample
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.step import Program, add_up, gradient_function, score_function


def noisy(rng, lora, size=0.1):
    """The adapters with weights that show in every gradient."""
    return jax.tree.map(lambda x: x + jnp.asarray(size * rng.normal(size=x.shape), x.dtype) if x.ndim > 1 else x, lora)


def fresh(rng, model, rank=4, adapters=1, targets=None):
    kwargs = {} if targets is None else {"targets": targets}
    return noisy(rng, init_lora(model, rank, 2.0 * rank, num_adapters=adapters, **kwargs))


def groups_of_samples(rng, vocab, groups, size, prompt=12, longest=20, adapters=1):
    """Groups that share a prompt; every completion has sampled and environment tokens.

    ``rng`` draws the values alone. Lengths, and which tokens are trained, are the same in every run and for each
    adapter, so that all of them need the same compiled programs.
    """
    samples = []
    layouts = [np.random.default_rng([group]) for group in range(groups // adapters) for _ in range(adapters)]
    for group, layout in enumerate(layouts):
        shared = rng.integers(0, vocab, int(layout.integers(3, prompt)))
        for _ in range(size):
            rest = rng.integers(0, vocab, int(layout.integers(2, longest)))
            tokens = np.concatenate([shared, rest])
            trained = np.concatenate([np.zeros(len(shared), bool), layout.random(len(rest)) < 0.6])
            trained[len(shared)] |= bool(layout.random() < 0.5)
            trained[-1] = True
            logprobs = np.where(trained, -rng.gamma(4.0, 1.0, len(tokens)), 0.0)
            samples.append(Sample(tokens, trained, logprobs, float(rng.normal()), group, group % adapters))
    return samples


def gradients(
    decoder, lora, samples, mesh=MeshSettings(data=1), execution=Execution(), tokens=64, temperature=1.0,  # noqa: B008
    config=None, **loss,
):  # fmt: skip
    """``(gradients, terms)`` on the host, summed over micro-batches of ``tokens`` a shard."""
    config = config or GRPOConfig(**loss)
    count = np.prod([getattr(mesh, name) for name in ("data", "fsdp", "tensor", "expert")])
    grid = make_mesh(mesh, jax.devices()[:count])
    check_mesh(decoder.config, grid)
    program = Program(decoder.config, grid, execution, lora.targets, temperature)
    params = jax.device_put(params_of(decoder), shardings(grid, program.param_specs))
    placed = type(lora)(
        jax.device_put(lora.weights, shardings(grid, program.lora_specs)), to_mesh(lora.scale, grid, P())
    )
    function = gradient_function(program, policy_loss_config(config))
    score_base = score_function(program, adapted=False)
    result = None
    for micro in micro_batches(
        samples, micro_batch_tokens=tokens, loss_type=config.loss_type,
        max_completion_length=config.max_completion_length, shards=batch_shards(grid),
    ):  # fmt: skip
        micro = to_mesh(micro, grid, P(BATCH_AXES))
        reference = score_base(params, placed, micro) if config.beta else None
        part = function(params, placed, micro, None, reference)
        result = part if result is None else add_up(result, part)
    return to_host(result)


def assert_close(found, expected, tolerance=1e-5):
    """Every array within ``tolerance`` of its largest entry."""
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=tolerance * max(np.abs(theirs).max(), 1e-3), err_msg=jax.tree_util.keystr(path)
        )
