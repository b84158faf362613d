"""The fused head against plain autodiff through all logits, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trace_jax.training import head


def _plain(hidden_MD, head_VD, targets_M, temperature):
    logp_MV = jax.nn.log_softmax(hidden_MD @ head_VD.T / temperature, axis=-1)
    entropy_M = -jnp.sum(jnp.exp(logp_MV) * logp_MV, axis=-1)
    return jnp.take_along_axis(logp_MV, targets_M[:, None], 1)[:, 0], entropy_M


@pytest.mark.parametrize("chunk_tokens", [None, 16])  # 16: three chunks, the last one padded
def test_values_and_gradient_equal_autodiff(chunk_tokens):
    M, D, V = 37, 12, 50
    logits = 1 << 24 if chunk_tokens is None else chunk_tokens * V
    fused = partial(head.token_logprobs, logits_elements=logits)
    rng = np.random.default_rng()
    with jax.enable_x64(True):
        hidden, weight = jnp.asarray(rng.normal(size=(M, D))), jnp.asarray(rng.normal(size=(V, D)))
        targets, cotangent = jnp.asarray(rng.integers(0, V, M)), jnp.asarray(rng.normal(size=M))
        for temperature in (1.0, 0.7):
            ours = jax.jit(fused, static_argnums=3)(hidden, weight, targets, temperature)
            theirs = _plain(hidden, weight, targets, temperature)
            np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-12)
            np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-12)
            gradients = [
                jax.jit(jax.grad(lambda h, f=f, t=temperature: f(h, weight, targets, t)[0] @ cotangent))(hidden)
                for f in (fused, _plain)
            ]
            np.testing.assert_allclose(*gradients, rtol=0, atol=1e-12)


def test_never_holds_the_logits_of_all_tokens():
    """Peak temporary memory of loss and gradient stays below half of one [M, V] array."""
    M, D, V = 8192, 8, 16384
    shapes = [jax.ShapeDtypeStruct(*spec) for spec in (((M, D), "float32"), ((V, D), "float32"), ((M,), "int32"))]
    compiled = jax.jit(jax.grad(lambda h, w, y: head.token_logprobs(h, w, y)[0].sum())).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < M * V * 4 / 2


def test_bfloat16_hidden_states_are_normalised_in_float32():
    rng = np.random.default_rng()
    hidden = jnp.asarray(rng.normal(size=(20, 16)), jnp.bfloat16)
    weight = jnp.asarray(rng.normal(size=(40, 16)), jnp.bfloat16)
    targets = jnp.asarray(rng.integers(0, 40, 20))
    ours = head.token_logprobs(hidden, weight, targets)[0]
    assert ours.dtype == jnp.float32
    theirs = _plain(hidden.astype(jnp.float32), weight.astype(jnp.float32), targets, 1.0)[0]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    gradient = jax.grad(lambda h: head.token_logprobs(h, weight, targets)[0].sum())(hidden)
    assert gradient.dtype == jnp.bfloat16
