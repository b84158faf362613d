"""Qwen3-30B-A3B on one slice v5p-128 (64 chips, 4x4x4; the name counts TensorCores), otherwise ``qwen3_30b_v5p64``."""

from ml_collections import ConfigDict

from configs.clusters import qwen3_30b_v5p64


def get_config() -> ConfigDict:
    """Deltas over ``qwen3_30b_v5p64``; project, image, buckets, cluster and addresses are yours to fill in."""
    config = qwen3_30b_v5p64.get_config()
    config.workdir = "gs://my-bucket/runs/qwen3-30b-v5p128"
    config.trainer.topology = "4x4x4"
    config.trainer.mesh.data = 32
    return config.lock()
