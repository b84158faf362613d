"""Qwen3-8B, LoRA on every projection: ``--config=configs/qwen3_8b.py:CHIPS``.

    CHIPS   for                    one chip holds
    v5e     TPU v5e-16 (4x4)       an eighth of the base (the default)
    h100    eight H100             all of it

Memory and time, computed without a chip: python -m launch.plan --config=configs/qwen3_8b.py --topology=v5e:4x4
"""

from ml_collections import ConfigDict

from configs import base

_FSDP = {"v5e": 8, "h100": 1}


def get_config(chips: str = "v5e") -> ConfigDict:
    """Deltas over ``base``."""
    config = base.get_config()
    config.plan.model = "configs/models/qwen3_8b.json"
    config.plan.prompt_tokens = 2048
    config.plan.completion_tokens = 2048
    config.base.path = "models/Qwen3-8B"
    config.base.dtype = "bfloat16"
    config.mesh.fsdp = _FSDP[chips]
    config.training.remat = "attention"
    config.training.micro_batch_tokens = config.training.row_tokens = 10240
    config.training.max_steps = 100
    config.training.groups_per_step = 32
    config.training.max_completion_length = 2048
    return config.lock()
