"""Qwen3-8B on one machine of 8 H100 (SkyPilot and plain SSH), rollouts on a second one."""

from ml_collections import ConfigDict

from configs.clusters import base


def get_config() -> ConfigDict:
    """Deltas over ``base``; image, buckets and addresses are yours to fill in."""
    config = base.get_config()
    config.name = "trace-8b-h100"
    config.targets = ("skypilot", "ssh")
    config.project = "my-project"
    config.image = "us-docker.pkg.dev/my-project/trace/trainer:cuda"
    config.model = "gs://my-bucket/models/Qwen3-8B"
    config.workdir = "gs://my-bucket/runs/qwen3-8b-h100"
    config.environments = ("gs://my-bucket/runs/synthesis/environments",)
    config.secrets = ("WANDB_API_KEY=wandb-api-key", "TRACE_RELAY_KEY=trace-relay-key")
    config.trainer.config = "configs/qwen3_8b.py:h100"
    config.trainer.accelerator = "H100"
    config.trainer.hosts = 1
    config.trainer.chips_per_host = 8
    config.trainer.spot = True
    config.trainer.mesh.data = 8
    config.rollout.image = "us-docker.pkg.dev/my-project/trace/rollout:cuda"
    config.rollout.spot = True
    config.ssh.trainer_hosts = ("me@10.128.0.10",)
    config.ssh.rollout_hosts = ("me@10.128.0.11",)
    return config.lock()
