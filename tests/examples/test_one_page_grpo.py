"""The example runs as it stands: it writes an adapter that loads, and its agent gets better."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from lamps_target import design, manifest

from examples.one_page_grpo import ENVIRONMENT, ROLLOUT, TRAINING, grpo
from trace_jax.contract.files import write_document
from trace_jax.models.formats.huggingface import read_config, revision
from trace_jax.models.formats.peft import load_peft

BASE = "assets/tiny_agent"


def test_a_short_run_writes_an_adapter_that_loads(tmp_path):
    rows = []
    training = dataclasses.replace(TRAINING, groups_per_step=4, num_generations=4, num_iterations=1, rank=2)
    rollout = dataclasses.replace(ROLLOUT, concurrency=16)
    path = grpo(
        BASE, ENVIRONMENT, tmp_path, steps=2, training=training, rollout=rollout, seed=1, report=rows.append
    )  # fmt: skip
    assert [row["step"] for row in rows] == [1, 2] and max(row["trained_tokens"] for row in rows) > 0
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert all(0 <= row["reward"] <= 1 for row in rows)
    lora = load_peft(path, read_config(BASE), revision(BASE))
    assert lora.rank == 2 and max(np.abs(pair["b"]).max() for pair in lora.weights.values()) > 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["peft"]


@pytest.mark.slow
def test_an_environment_that_a_model_wrote_trains_an_adapter_out_of_the_sandbox(tmp_path):
    """It is the calendar's, which only its own agent can play."""
    source = Path("examples/calendar_llm/restrictions.py").read_text()
    written = design().replace(source=source, entry_point="sandbox:Restrictions", parameters={"others": 0})
    write_document(tmp_path / "restrictions.json", manifest(written))
    rows = []
    training = dataclasses.replace(TRAINING, num_iterations=1)
    path = grpo(
        "assets/calendar_llm/agent", str(tmp_path / "restrictions.json"), tmp_path, steps=2, training=training,
        report=rows.append,
    )  # fmt: skip
    assert [row["step"] for row in rows] == [1, 2] and max(row["trained_tokens"] for row in rows) > 0
    assert 0 < np.mean([row["reward"] for row in rows]) < 1
    assert path == tmp_path / "peft" and (path / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_the_reward_rises(tmp_path):
    rows = []
    grpo(BASE, ENVIRONMENT, tmp_path, steps=15, report=rows.append)
    rewards = [row["reward"] for row in rows]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:2]) + 0.3
