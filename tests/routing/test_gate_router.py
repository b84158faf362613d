"""The gate: learns what separates the prompts, says what it does not know, and belongs to one base."""

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from trace_jax.contract.trajectory import Message
from trace_jax.errors import UserError
from trace_jax.routing import logistic
from trace_jax.routing.gate import Gate, GateRouter, load_gate, save_gate
from trace_jax.routing.gate_training import LabelledPrompt, fit_gate, train_gate
from trace_jax.routing.router import RouteRequest
from trace_jax.routing.select import Together, choices
from trace_jax.routing.table import build_table

COUNT = 100  # prompts of each
PHRASES = {
    "look-1": "cancel order",
    "finish-1": "refund price of",
    "look-1+finish-1": "refund price of cancel order",
    "": "please lamp",
}


def prompts(rng, adapter, count):
    names = [f"{PHRASES[adapter]} {rng.integers(10**6)} {rng.integers(10**6)}" for _ in range(count)]
    system = Message(role="system", content="policy")
    needed = tuple(part for part in adapter.split("+") if part)
    return [LabelledPrompt((system, Message(role="user", content=name)), (), needed) for name in names]


@pytest.fixture(scope="module")
def table(manifest, base):
    adapters = [manifest("look-1", "look"), manifest("finish-1", "finish")]
    return build_table(base, "gate", adapters, {"look": "Look first.", "finish": "Do all."})


@pytest.fixture(scope="module")
def trained(table, base, reader, renderer):
    rng = np.random.default_rng(0)
    examples = [example for adapter in PHRASES for example in prompts(rng, adapter, COUNT)]
    return train_gate(examples, choices(table), base, reader, renderer, seed=1)


def test_gate_separates_fresh_prompts_and_knows_the_base_slot(trained, table, base, reader, renderer):
    gate, report = trained
    router = GateRouter(table, gate, base, reader, renderer, Together())
    rng = np.random.default_rng(99)
    fresh = [example for adapter in PHRASES for example in prompts(rng, adapter, 30)]
    decisions = router.decide_batch([RouteRequest(str(i), e.messages, e.tools) for i, e in enumerate(fresh)])
    right = [set(d.adapters) == set(e.adapters) for d, e in zip(decisions, fresh, strict=True)]
    assert np.mean(right) > 0.9  # chance is a quarter
    assert all(weight == 1.0 for decision in decisions for weight in decision.adapters.values())
    assert report.accuracy > 0.9 and report.held_out == 80 and report.train == 320
    assert report.negative_log_likelihood < 0.5 * np.log(2)


def test_gate_probabilities_equal_torchs_linear_layer(trained, table, base, reader, renderer):
    gate, _ = trained
    gate = dataclasses.replace(gate, weight=0.05 * gate.weight)  # softer, so that the weights are not all 0 and 1
    example = prompts(np.random.default_rng(5), "look-1", 1)[0]
    decision = GateRouter(table, gate, base, reader, renderer).decide("c", example.messages)
    features = torch.tensor(reader.pooled([renderer.prompt(example.messages, ())]), dtype=torch.float64)
    mean, last = features[:, 0], features[:, 1]
    pooled = {"mean": mean, "last": last, "mean_last": torch.cat([mean, last], dim=1)}[gate.pooling]
    layer = torch.nn.Linear(*gate.weight.shape, dtype=torch.float64)
    layer.weight.data, layer.bias.data = torch.tensor(gate.weight.T), torch.tensor(gate.bias)
    needed = torch.sigmoid(layer((pooled - torch.tensor(gate.mean)) / torch.tensor(gate.scale)))[0].detach()
    none = (1 - needed).prod()
    expected = torch.cat([none[None], (1 - none) * needed / needed.sum()])
    found = [decision.weights[name] for name in choices(table)]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-9)


def test_log_weights_of_certain_logits_are_finite_and_sum_to_one(trained, reader):
    gate, _ = trained
    features = np.random.default_rng(0).normal(size=(50, 2, len(gate.mean) if gate.pooling != "mean_last" else 24))
    for factor in (1e-6, 1.0, 1e3):
        sharp = dataclasses.replace(gate, weight=factor * gate.weight, bias=factor * gate.bias)
        weights = sharp.log_weights(features)
        assert np.isfinite(weights).all()
        np.testing.assert_allclose(np.exp(weights).sum(axis=1), 1.0, rtol=1e-9)


def test_undecided_gate_sends_the_conversation_to_the_base(trained, table, base, reader, renderer):
    gate, _ = trained
    blank = dataclasses.replace(gate, weight=0 * gate.weight, bias=0 * gate.bias)
    router = GateRouter(table.replace(minimum_weight=0.6), blank, base, reader, renderer)  # weights 1/4, 3/8, 3/8
    decision = router.decide("c", prompts(np.random.default_rng(5), "look-1", 1)[0].messages)
    assert decision.undecided and decision.adapters == {} and "below the minimum" in decision.reason
    long = (Message(role="user", content="order " * 400),)
    assert router.decide("c", long).reason.startswith("prompt refused: prompt of ")


def test_training_is_deterministic_and_survives_the_file(trained, table, base, reader, renderer, tmp_path):
    gate, report = trained
    rng = np.random.default_rng(0)
    examples = [example for adapter in PHRASES for example in prompts(rng, adapter, COUNT)]
    again, report_again = train_gate(examples + examples[:7], choices(table), base, reader, renderer, seed=1)
    assert report_again == report  # repeated prompts change nothing
    save_gate(tmp_path / "gate.safetensors", gate)
    for other in (again, load_gate(tmp_path / "gate.safetensors", base)):
        for name in ("mean", "scale", "weight", "bias"):
            np.testing.assert_array_equal(getattr(other, name), getattr(gate, name))
        assert (other.choices, other.pooling, other.base) == (gate.choices, gate.pooling, gate.base)
    written = set()
    for _ in range(20):
        save_gate(tmp_path / "gate.safetensors", gate)
        written.add((tmp_path / "gate.safetensors").read_bytes())
    assert len(written) == 1


def test_gate_of_another_base_or_table_or_model_is_refused(trained, table, manifest, base, reader, renderer, tmp_path):
    gate, _ = trained
    save_gate(tmp_path / "gate.safetensors", gate)
    with pytest.raises(UserError, match="gate of base 0123456789abcdef, the model is other"):
        load_gate(tmp_path / "gate.safetensors", "other")
    with pytest.raises(UserError, match="route table is for base"):
        GateRouter(table, gate, "other", reader, renderer)
    with pytest.raises(UserError, match="gate of base other"):
        GateRouter(table, dataclasses.replace(gate, base="other"), base, reader, renderer)
    smaller = build_table(base, "gate", [manifest("look-1", "look")], {"look": "Look first."})
    with pytest.raises(UserError, match="train it for this table"):
        GateRouter(smaller, gate, base, reader, renderer)
    with pytest.raises(UserError, match="another model's gate"):
        gate.logits(np.zeros((1, 2, 3)))


def test_damaged_gates_are_refused(trained, base, tmp_path):
    gate, _ = trained
    with pytest.raises(UserError, match="gate weight holds NaN"):
        dataclasses.replace(gate, weight=np.full_like(gate.weight, np.nan))
    path = tmp_path / "gate.safetensors"
    with pytest.raises(UserError, match="no such gate"):
        load_gate(path, base)
    save_gate(path, gate)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="not a gate"):
        load_gate(path, base)
    path.write_bytes(save({"mean": gate.mean}, {"format": "trace_jax gate 2"}))
    with pytest.raises(UserError, match="format 'trace_jax gate 2'; this build reads 'trace_jax gate 3'"):
        load_gate(path, base)


def test_arrays_that_do_not_fit_each_other_are_refused(trained):
    gate, _ = trained
    with pytest.raises(UserError, match="does not fit 2 choices"):
        dataclasses.replace(gate, choices=gate.choices[:2])
    for names in (("mean",), ("scale",), ("mean", "scale"), ("bias",)):
        cut = {name: getattr(gate, name)[:-1] for name in names}
        with pytest.raises(UserError, match=rf"{names[0]} \({len(cut[names[0]])},\).* does not fit 3 choices"):
            dataclasses.replace(gate, **cut)


def test_nan_weights_on_disk_are_refused(trained, base, tmp_path):
    gate, _ = trained
    path = tmp_path / "gate.safetensors"
    save_gate(path, gate)
    data = path.read_bytes()
    path.write_bytes(data[:-8] + np.float64(np.nan).tobytes())
    with pytest.raises(UserError, match="NaN or infinity"):
        load_gate(path, base)


def test_too_few_or_mislabelled_prompts_are_refused(table, base, reader, renderer):
    rng = np.random.default_rng(0)
    examples = [example for adapter in PHRASES for example in prompts(rng, adapter, 12)]
    with pytest.raises(UserError, match="3 distinct prompts for 'the base'"):
        train_gate([e for e in examples if e.adapters] + examples[-3:], choices(table), base, reader, renderer, seed=0)
    stray = dataclasses.replace(examples[0], adapters=("nobody",))
    with pytest.raises(UserError, match="labelled 'nobody'"):
        train_gate([*examples, stray], choices(table), base, reader, renderer, seed=0)
    features = np.zeros((3, 2, 4))
    features[1, 0, 2] = np.nan
    with pytest.raises(UserError, match="hidden states hold NaN"):
        fit_gate(features, np.zeros((3, 2), bool), choices(table), base, 0)


def test_gate_reports_honest_confidence_on_noisy_labels(base):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 2, 8)).astype(np.float32)
    needed = features[:, 0, :2] * 3.0 + rng.logistic(size=(600, 2)) > 0
    gate, report = fit_gate(features, needed, ("", "a", "b"), base, seed=0)
    assert isinstance(gate, Gate) and gate.pooling != "last"  # the signal is in the mean
    bayes = np.mean(((features[:, 0, :2] > 0) == needed).all(axis=1))
    assert report.accuracy > bayes - 0.1
    assert report.calibration_error < 0.15


def test_the_gate_is_calibrated_on_prompts_that_it_has_not_seen(base):
    rng = np.random.default_rng(0)

    def draw(count):
        features = rng.normal(size=(count, 2, 64))
        return features, features[:, 0, :2] * 1.5 + rng.logistic(size=(count, 2)) > 0

    gate, report = fit_gate(*draw(300), ("", "a", "b"), base, seed=0)
    assert report.temperature > 1.5  # so few examples of so many features overfit
    features, needed = draw(5000)
    assert 0.7 < logistic.calibrate(gate.logits(features), needed) < 1.4
