"""The policy loss against TRL's formula in float64, and its gradient against finite differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trl_reference as trl

from trace_jax.training.loss import policy_loss, policy_loss_config, token_weights
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.staleness import split_stale

B, T = 5, 7


def _case(seed=None):
    """Random log-probabilities with ratios on both sides of every clip, ragged masks, advantages of both signs."""
    rng = np.random.default_rng(seed)
    logp = -rng.gamma(2.0, 1.0, (B, T))
    spread = {name: logp + rng.normal(0, 0.4, (B, T)) for name in ("old", "sampler", "ref")}
    mask = np.ones((B, T))
    mask[:, 1:].flat[rng.choice(B * (T - 1), 12, replace=False)] = 0.0  # the same number every time: shapes are alike
    return logp, spread, rng.normal(0, 1, B), mask


def _ours(case, config, old=True, padding=3, padded=(), summed=True):
    """The same numbers in compact form, padding included, as a function of logp; ``padded`` replaces padding values."""
    logp, spread, adv, mask = case
    rows, columns = np.nonzero(mask)
    weights = token_weights(mask.sum(-1), config.loss_type, config.max_completion_length)

    padded = dict(padded)

    def compact(values, name=""):
        return jnp.asarray(np.concatenate([values, np.full(padding, padded.get(name, -1.7))]))

    weights_M = jnp.asarray(np.concatenate([weights[rows], np.zeros(padding)]))
    sequence_M = jnp.asarray(np.concatenate([rows, np.zeros(padding, int)]))

    def function(logp_M):
        loss_M, terms = policy_loss(
            logp_M,
            old_logprobs_M=compact(spread["old"][rows, columns], "old") if old else None,
            sampler_logprobs_M=compact(spread["sampler"][rows, columns], "sampler"),
            reference_logprobs_M=compact(spread["ref"][rows, columns], "ref") if config.beta else None,
            advantages_M=compact(adv[rows]),
            weights_M=weights_M,
            sequence_M=sequence_M,
            config=policy_loss_config(config),
        )
        return jnp.sum(loss_M), {name: jnp.sum(value) for name, value in terms.items()} if summed else terms

    return function, compact(logp[rows, columns], "logp")


CASES = list(itertools.product(["grpo", "dapo", "dr_grpo"], ["token", "sequence"], [None, 0.28], ["k1", "k2", "k3"]))


@pytest.mark.parametrize(("loss_type", "level", "high", "kl"), CASES)
def test_equals_trl(loss_type, level, high, kl):
    config = GRPOConfig(
        epsilon_high=high, beta=0.07, kl_estimator=kl, loss_type=loss_type, max_completion_length=11,
        importance_sampling_level=level)  # fmt: skip
    case = logp, spread, adv, mask = _case()
    with jax.enable_x64(True):
        function, logp_M = _ours(case, config)
        ours = float(jax.jit(function)(logp_M)[0])
    theirs = trl.loss(
        logp, spread["sampler"], None, spread["ref"], adv, mask, eps=0.2, eps_high=0.2 if high is None else high,
        beta=0.07, kl=kl, level=level, loss_type=loss_type, max_length=11)  # fmt: skip
    assert abs(ours - theirs) < 1e-12


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_truncated_importance_sampling_equals_trl(level):
    config = GRPOConfig(tis_cap=1.2, importance_sampling_level=level)
    case = logp, spread, adv, mask = _case()
    with jax.enable_x64(True):
        function, logp_M = _ours(case, config)
        loss, terms = function(logp_M)
    theirs = trl.loss(
        logp, spread["old"], spread["sampler"], None, adv, mask, eps=0.2, eps_high=0.2, beta=0.0, kl="k3",
        level=level, loss_type="dapo", max_length=1, tis_cap=1.2)  # fmt: skip
    assert abs(float(loss) - theirs) < 1e-12
    ratio = np.exp(spread["old"] - spread["sampler"])
    assert abs(float(terms["tis_weight"]) - (np.minimum(ratio, 1.2) * mask).sum()) < 1e-9
    assert float(terms["tis_truncated"]) == ((ratio >= 1.2) & (mask > 0)).sum() > 0


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(("low", "high"), [(0.8, 1.3), (None, 1.3), (0.8, None)])
@pytest.mark.parametrize("cap", [None, 1.1])
def test_masked_by_ratio_equals_trl(level, low, high, cap):
    config = GRPOConfig(
        icepop_low=low, icepop_high=high, tis_cap=cap, importance_sampling_level=level, beta=0.1, loss_type="grpo"
    )
    case = logp, spread, adv, mask = _case()
    band = (low or 0.0, high or np.inf)
    with jax.enable_x64(True):
        function, logp_M = _ours(case, config)
        loss, terms = function(logp_M)
    theirs = trl.loss(
        logp, spread["old"], spread["sampler"], spread["ref"], adv, mask, eps=0.2, eps_high=0.2, beta=0.1, kl="k3",
        level=level, loss_type="grpo", max_length=1, tis_cap=cap, icepop=band)  # fmt: skip
    assert abs(float(loss) - theirs) < 1e-12
    ratio = np.exp(spread["old"] - spread["sampler"])
    masked = ((ratio < band[0]) | (ratio > band[1])) & (mask > 0)
    assert float(terms["icepop_masked"]) == masked.sum() > 0
    assert float(terms["tokens"]) == mask.sum()  # a masked token keeps its share
    assert ("tis_truncated" in terms) == (cap is not None)


def test_masked_tokens_have_no_gradient_and_the_others_theirs():
    """With π_old = π the gradient is −w_t k_t A_t inside the band, k = π / π_sampler, and 0 outside."""
    config = GRPOConfig(icepop_low=0.8, icepop_high=1.2)
    case = logp, spread, adv, mask = _case()
    rows, columns = np.nonzero(mask)
    with jax.enable_x64(True):
        function, logp_M = _ours(case, config, old=False, padding=0)
        gradient = jax.grad(lambda x: function(x)[0])(logp_M)
    ratio = np.exp((logp - spread["sampler"])[rows, columns])
    inside = (ratio >= 0.8) & (ratio <= 1.2)
    np.testing.assert_allclose(gradient, inside * ratio * -adv[rows] / mask.sum(), rtol=0, atol=1e-12)
    assert 0 < inside.sum() < len(inside)


def test_first_update_under_truncation_is_the_weighted_policy_gradient():
    """With π_old = π the ratio is 1: the gradient is −w_t · min(π / π_sampler, cap) · A_t, corrected REINFORCE."""
    config = GRPOConfig(tis_cap=1.1)
    case = logp, spread, adv, mask = _case()
    rows, columns = np.nonzero(mask)
    with jax.enable_x64(True):
        function, logp_M = _ours(case, config, old=False, padding=0)
        gradient = jax.grad(lambda x: function(x)[0])(logp_M)
    correction = np.minimum(np.exp((logp - spread["sampler"])[rows, columns]), 1.1)
    np.testing.assert_allclose(gradient, -correction * adv[rows] / mask.sum(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("correction", [{}, {"tis_cap": 1.2}, {"icepop_low": 0.8, "icepop_high": 1.3}])
def test_gradient_equals_finite_differences(kl, level, correction):
    config = GRPOConfig(
        beta=0.1, kl_estimator=kl, importance_sampling_level=level, loss_type="grpo", epsilon_high=0.3, **correction
    )
    with jax.enable_x64(True):
        function, logp_M = _ours(_case(), config)
        gradient, step = jax.jit(jax.grad(lambda x: function(x)[0]))(logp_M), 1e-6
        losses = jax.jit(jax.vmap(lambda x: function(x)[0]))
        ahead, behind = (losses(logp_M + sign * step * jnp.eye(len(logp_M))) for sign in (1, -1))
        np.testing.assert_allclose(gradient, (ahead - behind) / (2 * step), rtol=0, atol=1e-7)


def test_padding_adds_nothing_and_gets_no_gradient():
    config, case = GRPOConfig(beta=0.1, importance_sampling_level="sequence"), _case()
    with jax.enable_x64(True):
        results = []
        for padding in (0, 9):
            function, logp_M = _ours(case, config, padding=padding)
            (loss, terms), gradient = jax.jit(jax.value_and_grad(function, has_aux=True))(logp_M)
            results.append((loss, terms, gradient))
    (loss, terms, gradient), (padded_loss, padded_terms, padded_gradient) = results
    assert float(loss) == pytest.approx(float(padded_loss), abs=1e-15)
    for name, value in terms.items():
        assert float(value) == pytest.approx(float(padded_terms[name]), abs=1e-12), name
    np.testing.assert_array_equal(padded_gradient[-9:], np.zeros(9))
    np.testing.assert_allclose(gradient, padded_gradient[:-9], rtol=0, atol=1e-15)


@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
@pytest.mark.parametrize("correction", [{}, {"tis_cap": 1.2}, {"icepop_low": 0.8}])
@pytest.mark.parametrize("padded", [{"ref": -1.0, "logp": -120.0}, {"old": -1.0, "sampler": -200.0, "logp": -1e30}])
def test_padding_of_any_log_probability_adds_nothing(kl, correction, padded):
    """In float32, where exp(r) overflows at r > 88: r is what the policy is worse than the reference."""
    config, case = GRPOConfig(beta=0.1, kl_estimator=kl, **correction), _case()
    results = []
    for padding in (0, 4):
        function, logp_M = _ours(case, config, padding=padding, padded=padded)
        results.append(jax.jit(jax.value_and_grad(function, has_aux=True))(logp_M.astype(jnp.float32)))
    ((loss, terms), gradient), ((padded_loss, padded_terms), padded_gradient) = results
    np.testing.assert_allclose(padded_loss, loss, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(padded_gradient[-4:], np.zeros(4))
    np.testing.assert_allclose(padded_gradient[:-4], gradient, rtol=1e-5, atol=1e-7)
    for name, value in terms.items():
        np.testing.assert_allclose(padded_terms[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_mismatch_and_clip_terms_are_sums_over_trained_tokens():
    case = logp, spread, adv, mask = _case()
    with jax.enable_x64(True):
        function, logp_M = _ours(case, GRPOConfig(epsilon=0.1, epsilon_high=0.3), old=False)
        terms = {name: float(value) for name, value in function(logp_M)[1].items()}
    delta = logp - spread["sampler"]
    ratio = np.exp(delta)
    expected = {
        "tokens": mask.sum(),
        "delta": (delta * mask).sum(),
        "abs_delta": (abs(delta) * mask).sum(),
        "mismatch_kl": ((np.exp(delta) - 1 - delta) * mask).sum(),
        "ratio": (ratio * mask).sum(),
        "clip_low": ((ratio < 0.9) & (adv[:, None] < 0) & (mask > 0)).sum(),
        "clip_high": ((ratio > 1.3) & (adv[:, None] > 0) & (mask > 0)).sum(),
    }
    assert terms == pytest.approx(expected, abs=1e-12)
    assert expected["clip_low"] + expected["clip_high"] > 0


def test_terms_of_stale_tokens_are_kept_apart():
    case = logp, spread, adv, mask = _case()
    staleness = np.random.default_rng().integers(0, 3, mask.shape)
    rows, columns = np.nonzero(mask)
    with jax.enable_x64(True):
        function, logp_M = _ours(case, GRPOConfig(), old=False, padding=0, summed=False)
        whole = function(logp_M)[1]
        terms = split_stale(whole, jnp.asarray(staleness[rows, columns]))
    delta, old = (logp - spread["sampler"])[rows, columns], staleness[rows, columns] > 0
    expected = {
        "delta": delta * ~old, "abs_delta": abs(delta) * ~old, "mismatch_kl": (np.exp(delta) - 1 - delta) * ~old,
        "stale_delta": delta * old, "stale_abs_delta": abs(delta) * old, "stale_tokens": old, "compared": ~old,
        "staleness": staleness[rows, columns],
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=0, atol=1e-12, err_msg=name)
    assert terms.keys() == whole.keys() | expected.keys()
    assert all(terms[name] is whole[name] for name in whole.keys() - expected.keys())
