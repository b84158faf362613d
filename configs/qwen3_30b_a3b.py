"""Qwen3-30B-A3B, LoRA on every projection of every expert: ``--config=configs/qwen3_30b_a3b.py:CHIPS``.

    CHIPS   for                               one chip holds
    v5p     TPU v5p-64 (2x4x4) and larger     half of the experts (the default)
    v6e     TPU v6e-64 (8x8)                  a quarter of them
    h100    eight H100                        half of them

Memory and time, computed without a chip: python -m launch.plan --config=configs/qwen3_30b_a3b.py --topology=v5p:2x4x4
"""

from ml_collections import ConfigDict

from configs import base

# Experts are split over the fewest chips that have room for them, because more copies of them mean fewer tokens on the
# network. A micro-batch has two packed rows (v6e: one row), each with a prompt and two completions.
_SETTINGS = {"v5p": (2, 12288, "attention"), "v6e": (4, 6144, "full"), "h100": (2, 12288, "attention")}


def get_config(chips: str = "v5p") -> ConfigDict:
    """Deltas over ``base``."""
    config = base.get_config()
    config.plan.model = "configs/models/qwen3_30b_a3b.json"
    config.plan.prompt_tokens = 2048
    config.plan.completion_tokens = 2048
    config.base.path = "models/Qwen3-30B-A3B"
    config.base.dtype = "bfloat16"
    config.mesh.expert, config.training.micro_batch_tokens, config.training.remat = _SETTINGS[chips]
    config.training.row_tokens = 6144
    config.training.max_steps = 100
    config.training.groups_per_step = 64
    config.training.max_completion_length = 2048
    return config.lock()
