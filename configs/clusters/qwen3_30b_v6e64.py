"""Qwen3-30B-A3B on one v6e slice of 64 chips (GKE), rollouts on two machines of 8 H100."""

from ml_collections import ConfigDict

from configs.clusters import base


def get_config() -> ConfigDict:
    """Deltas over ``base``; project, image, buckets and cluster are yours to fill in."""
    config = base.get_config()
    config.name = "trace-30b-v6e"
    config.targets = ("gke",)
    config.project = "my-project"
    config.zone = "us-east5-b"
    config.image = "us-docker.pkg.dev/my-project/trace/trainer:tpu"
    config.model = "gs://my-bucket/models/Qwen3-30B-A3B"
    config.workdir = "gs://my-bucket/runs/qwen3-30b-v6e64"
    config.environments = ("gs://my-bucket/runs/synthesis/environments",)
    config.secrets = ("WANDB_API_KEY=wandb-api-key", "TRACE_RELAY_KEY=trace-relay-key")
    config.trainer.config = "configs/qwen3_30b_a3b.py:v6e"
    config.trainer.accelerator = "v6e"
    config.trainer.topology = "8x8"
    config.trainer.spot = True
    config.trainer.mesh.data = 16
    config.trainer.mesh.expert = 4
    config.rollout.image = "us-docker.pkg.dev/my-project/trace/rollout:cuda"
    config.rollout.machines = 2
    config.rollout.tensor_parallel = 2
    config.gke.cluster = "trace"
    config.gke.service_account = "trace"
    return config.lock()
