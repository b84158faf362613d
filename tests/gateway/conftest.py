"""Three adapters of the tiny model, in memory and on disk, far enough from zero to change every reply."""

from pathlib import Path

import jax
import numpy as np
import pytest
from staging import impatient, stage  # noqa: F401 (fixtures)
from tiny_chat import *  # noqa: F403 (fixtures)

from trace_jax.gateway.adapters import Held
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import LoRA, init_lora


@pytest.fixture(scope="session")
def loras(config: DecoderConfig) -> dict[str, LoRA]:
    def lora(seed: int, rank: int) -> LoRA:
        rng, fresh = np.random.default_rng(seed), init_lora(config, rank, 2.0 * rank, ("q_proj", "v_proj"))
        return LoRA(jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), fresh.weights), fresh.scale)

    return {"refunds": lora(1, 2), "orders": lora(2, 3), "sums": lora(3, 4)}


@pytest.fixture(scope="session")
def held(loras: dict[str, LoRA], config: DecoderConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Held]:
    found = {}
    for name, lora in loras.items():
        directory: Path = tmp_path_factory.mktemp("adapters") / name
        save_peft(lora, config, directory, "base-revision")
        found[name] = Held(directory, lora.rank)
    return found
