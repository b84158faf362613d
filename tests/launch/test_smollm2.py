"""The program that teaches and trains the small real model, run on a tiny random one: every stage, once."""

import jax
import numpy as np
import pytest
from chatml_tokenizer import VOCABULARY, small_tokenizer
from etils import epath
from flax import nnx

from configs.smollm2 import get_config
from launch import smollm2
from launch.warm_start import WarmStartSettings
from trace_jax.chat.chatml import ChatMLRenderer
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.evaluation import EvaluationReport
from trace_jax.contract.files import read_document, read_records
from trace_jax.contract.trajectory import Trajectory
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.huggingface import load, save
from trace_jax.telemetry.metrics import read_metrics

TINY = DecoderConfig(
    vocab_size=VOCABULARY, hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=8, intermediate_size=24,
    tie_embeddings=True, model_type="llama",
)  # fmt: skip


@pytest.fixture
def config(tmp_path):
    model = tmp_path / "model"
    save(Decoder(TINY, nnx.Rngs(0)), TINY, model)
    small_tokenizer().save(str(model / "tokenizer.json"))
    config = get_config()
    config.base.path = str(model)
    config.target.held_out_tasks = 3
    config.engine.slots, config.engine.capacity = 8, 1024
    config.rollout.max_episode_tokens, config.rollout.max_turn_tokens, config.rollout.max_turns = 1024, 6, 2
    config.training.max_steps, config.training.groups_per_step, config.training.num_generations = 2, 2, 2
    config.warm_start.demonstrations, config.warm_start.passes, config.warm_start.rows = 5, 2, 4
    config.telemetry.tensorboard = False
    return config


def test_every_stage_runs_once_and_an_interrupted_run_goes_on(config, tmp_path, monkeypatch, capsys):
    workdir = epath.Path(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(smollm2.Run, "train", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            smollm2.main(config, workdir)
    played = [episode.id for episode in read_records(workdir / "trajectories.jsonl", Trajectory)]
    assert len(played) == 3 + 3 * config.evaluation.trials  # greedy and sampled, before the training
    taught = load(tmp_path / "run" / "warm")[0]

    monkeypatch.setattr(smollm2, "train_supervised", lambda *arguments: pytest.fail("taught twice"))
    smollm2.main(config, workdir)
    again = [episode.id for episode in read_records(workdir / "trajectories.jsonl", Trajectory)]
    assert again[: len(played)] == played and len(set(again)) == len(again) == 2 * len(played)

    manifest = read_document(workdir / "adapter" / "adapter.json", AdapterManifest)
    assert (manifest.steps, manifest.rollouts) == (2, 8)
    for row in read_metrics(workdir / "adapter").values():
        assert {"groups/live", "rollout/distinct", "reward/mean"} <= set(row)
    report = read_document(workdir / "evaluation.json", EvaluationReport)
    assert [(m.method, m.temperature) for m in report.methods] == [
        ("warm start", 0.0), ("warm start", 1.0), ("GRPO", 0.0), ("GRPO", 1.0)
    ]  # fmt: skip
    assert {c.baseline for c in report.comparisons} == {"warm start"}
    assert "warm start" in (workdir / "report.html").read_text()
    printed = capsys.readouterr().out
    assert "training, means over 10 steps" in printed and "1–2" in printed
    before = nnx.state(load(config.base.path)[0])
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, nnx.state(taught))
    assert min(jax.tree.leaves(moved)) > 0  # all weights were taught


def test_the_demonstrations_are_shuffled_passes_of_practice_tickets():
    renderer = ChatMLRenderer(small_tokenizer())
    warm = WarmStartSettings(demonstrations=5, passes=2)
    shown = smollm2.demonstrations(warm, 0, renderer)
    first, second = shown[:5], shown[5:]
    assert first != second and sorted(first, key=hash) == sorted(second, key=hash) and len(set(first)) == 5
    assert not set(smollm2.demonstrations(warm, 1, renderer)) & set(first)
