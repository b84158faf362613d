"""A model whose template leaves out what it has seen learns from each of its contexts."""

import numpy as np
from flax import nnx
from qwen3_tokenizer import small_tokenizer
from toy import SILENT, training_environment

from trace_jax.chat.qwen3 import Qwen3Renderer
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.settings import EngineSettings
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.training.job import Job
from trace_jax.training.learner import Learner
from trace_jax.training.settings import GRPOConfig
from trace_jax.training.trainer import train


def test_the_trainer_sees_every_context_as_the_engine_did(tmp_path, monkeypatch):
    tokenizer = small_tokenizer()
    renderer = Qwen3Renderer(tokenizer, "no_thinking")  # each turn is a context
    config = DecoderConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=16, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8,
        intermediate_size=24, tie_embeddings=True)  # fmt: skip
    decoder = Decoder(config, nnx.Rngs(1))
    engine = EmbeddedEngine(
        decoder,
        config,
        renderer.stop_token_ids,
        EngineSettings(slots=8, capacity=96),
        max_rank=4,
        max_adapters=2,
    )
    learnt, update, reports = [], Learner.update, []

    def watched(learner, samples):
        learnt.append(samples)
        return update(learner, samples)

    monkeypatch.setattr(Learner, "update", watched)
    train(
        [Job(name="toy-adapter", directory=tmp_path, environments=[training_environment()], capabilities=("letters",))],
        decoder=decoder, engine=engine, renderer=renderer, base="base-1", telemetry=SILENT, seed=11,
        rollout=RolloutSettings(max_turns=4, max_turn_tokens=10, max_episode_tokens=96, max_seconds=900.0),
        training=GRPOConfig(max_steps=2, groups_per_step=3, num_generations=4, rank=4, alpha=4.0, learning_rate=1e-2,
                            micro_batch_tokens=600, max_recollections=0),
        progress=reports.append,
    )  # fmt: skip
    assert len(learnt) == len(reports) == 2
    for samples, report in zip(learnt, reports, strict=True):
        assert samples and len(samples) % (2 * 4) == 0  # two turns an episode, whole groups
        for first, second in zip(samples[::2], samples[1::2], strict=True):
            assert (first.advantage, first.group) == (second.advantage, second.group)
            assert first.length < second.length
        assert report.metrics["mismatch/max_abs_delta"] < 1e-4
    assert np.ptp([sample.advantage for sample in learnt[0]]) > 0
