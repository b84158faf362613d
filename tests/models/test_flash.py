"""The attention kernels, interpreted, against plain attention with ``packed_mask``."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forward import noisy_decoder
from packed_rows import packed_ids, plain_attention, random_qkv

from trace_jax.errors import UserError
from trace_jax.models import attention
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import decoder_of, params_of
from trace_jax.models.execution import Execution
from trace_jax.models.kernels import flash
from trace_jax.models.kernels.flash import flash_attention
from trace_jax.models.kernels.flash_blocks import Blocks

EXACT = 2e-5


def _both(q, k, v, dout, segment, parent, window=None, positions=None):
    """(output, dq, dk, dv) of the kernels and of plain attention, the cotangent of padding being 0 for the latter."""
    real = (segment > 0)[:, :, None, None]
    positions = None if window is None else positions

    def kernels(*qkv):
        return flash_attention(*qkv, segment, parent, window, positions_BT=positions, interpret=True)

    def plain(*qkv):
        return plain_attention(*qkv, segment, parent, window, positions)

    out, vjp = jax.vjp(jax.jit(kernels), q, k, v)
    plain_out, plain_vjp = jax.vjp(jax.jit(plain), q, k, v)
    # The kernels get the cotangent of padding as well: it must have no effect.
    return (out, *vjp(dout)), (plain_out * real, *plain_vjp((dout * real).astype(plain_out.dtype)))


def _relative(x, y) -> float:
    """Greatest difference over the greatest value."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.abs(x - y).max() / np.abs(y).max()


@pytest.mark.parametrize(
    ("T", "N", "K", "H", "window"),
    [
        pytest.param(300, 4, 4, 64, None, marks=pytest.mark.slow),
        (200, 4, 2, 80, 50),
        pytest.param(384, 4, 2, 80, 50, marks=pytest.mark.slow),
        pytest.param(272, 8, 1, 128, None, marks=pytest.mark.slow),
        pytest.param(48, 2, 1, 256, 20, marks=pytest.mark.slow),
    ],
)
def test_equals_plain_attention(rng, T, N, K, H, window):
    segment, parent, positions = packed_ids(rng, 2, T)
    ours, plain = _both(*random_qkv(rng, 2, T, N, K, H), segment, parent, window, positions)
    assert [x.shape for x in ours] == [x.shape for x in plain]
    assert max(map(_relative, ours, plain)) <= EXACT


@pytest.mark.parametrize(
    ("blocks", "window"),
    [((128, 256), None), ((256, 128), 100), pytest.param((128, 128), None, marks=pytest.mark.slow)],
)
def test_equals_plain_attention_over_many_blocks(monkeypatch, rng, blocks, window):
    monkeypatch.setattr(flash, "choose_blocks", lambda *_: Blocks(*blocks))
    segment, parent, positions = packed_ids(rng, 2, 768)
    ours, plain = _both(*random_qkv(rng, 2, 768, 4, 2, 64), segment, parent, window, positions)
    assert max(map(_relative, ours, plain)) <= EXACT


def test_bfloat16(rng):
    """Weights and score gradients are rounded to bfloat16 (2^-9) before their products, and so are the results."""
    segment, parent, _ = packed_ids(rng, 2, 512)
    ours, plain = _both(*random_qkv(rng, 2, 512, 8, 2, 64, jnp.bfloat16), segment, parent)
    assert all(x.dtype == jnp.bfloat16 for x in ours)
    assert max(map(_relative, ours, plain)) <= 2**-6


def test_padding_gets_nothing_and_does_nothing(rng):
    T = 256
    q, k, v, dout = random_qkv(rng, 2, T, 2, 1, 64)
    segment = jnp.asarray(np.where(np.arange(T) < 100, 1, 0)[None].repeat(2, 0), jnp.int32).at[1].set(0)
    out, vjp = jax.vjp(lambda *qkv: flash_attention(*qkv, segment, 0 * segment, interpret=True), q, k, v)
    for array in (out, *vjp(dout)):
        array = np.asarray(array)
        assert np.isfinite(array).all() and np.abs(array[0, :100]).max() > 0
        assert not array[0, 100:].any() and not array[1].any()


def test_unrelated_tokens_have_no_influence(rng):
    """The gradient of one segment's outputs is exactly 0 for all tokens but its own and its parent's."""
    segment = jnp.asarray(np.repeat([1, 2, 3, 4, 0], [70, 60, 90, 20, 16])[None], jnp.int32)
    parent = jnp.asarray(np.repeat([0, 1, 1, 0, 0], [70, 60, 90, 20, 16])[None], jnp.int32)
    q, k, v, dout = random_qkv(rng, 1, 256, 2, 1, 64)
    # Scores far above those of the related tokens: were they only damped, it would show.
    k = k * jnp.where(segment == 3, 1, 1000)[:, :, None, None]
    of_third = dout * (segment == 3)[:, :, None, None]
    out, vjp = jax.vjp(lambda *qkv: flash_attention(*qkv, segment, parent, interpret=True), q, k, v)
    dq, dk, dv = vjp(of_third)
    for gradient in (dq, dk, dv):
        assert np.isfinite(gradient).all()
        assert not np.asarray(gradient)[0, np.asarray((segment[0] == 2) | (segment[0] == 4) | (segment[0] == 0))].any()
    assert np.asarray(dk)[0, :70].any() and np.asarray(dv)[0, :70].any() and not np.asarray(dq)[0, :70].any()
    assert not np.asarray(flash_attention(q, k, v * (segment == 3)[:, :, None, None], segment, parent, interpret=True))[
        0, np.asarray(segment[0] != 3)
    ].any()


def test_decoder_attends_with_the_kernels(monkeypatch, rng):
    """The decoder's pass and its gradient, layers with and without a window, layers scanned and attention kept."""
    monkeypatch.setattr(attention, "flash_attention", partial(flash_attention, interpret=True))
    config = DecoderConfig(97, 32, 3, 4, 2, 64, 48, tie_embeddings=True, layer_windows=(None, 9, None))
    segment, parent, positions = packed_ids(rng, 2, 112)
    tokens = jnp.asarray(rng.integers(0, 97, (2, 112)))
    decoder, dout = noisy_decoder(rng, config), jnp.asarray(rng.standard_normal((2, 112, 32)), jnp.float32)
    dout *= (segment > 0)[:, :, None]
    params = params_of(decoder)

    def loss(params, execution):
        x = decoder_of(config, params)(tokens, positions, segment, parent, execution=execution)
        return jnp.sum(x * dout), x * (segment > 0)[:, :, None]

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    ours = run(params, Execution("flash", remat="attention"))
    plain = run(params, Execution("xla"))
    assert max(jax.tree.leaves(jax.tree.map(_relative, ours, plain))) <= 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k_BTKH": jnp.zeros((1, 16, 3, 64))}, r"\(1, 16, 3, 64\)"),
        ({"v_BTKH": jnp.zeros((1, 16, 2, 64), jnp.bfloat16)}, "bfloat16"),
        ({"parent_ids_BT": jnp.zeros((1, 8), jnp.int32)}, r"\(1, 8\)"),
        ({"window": 4}, "positions_BT"),
        ({"window": 0, "positions_BT": jnp.zeros((1, 16), jnp.int32)}, "at least 1"),
        ({"window": 4, "positions_BT": jnp.zeros((1, 8), jnp.int32)}, r"\(1, 8\)"),
    ],
)
def test_refuses_what_does_not_fit(change, message):
    ids = jnp.zeros((1, 16), jnp.int32)
    q, k = jnp.zeros((1, 16, 4, 64)), jnp.zeros((1, 16, 2, 64))
    arguments = {"q_BTNH": q, "k_BTKH": k, "v_BTKH": k, "segment_ids_BT": ids, "parent_ids_BT": ids} | change
    with pytest.raises(UserError, match=message):
        flash_attention(**arguments)
