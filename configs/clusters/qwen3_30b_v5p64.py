"""Qwen3-30B-A3B on one slice v5p-64 (32 chips, 2x4x4; the name counts TensorCores), by GKE or plain SSH.

Two machines of 8 H100 generate the rollouts.
"""

from ml_collections import ConfigDict

from configs.clusters import base


def get_config() -> ConfigDict:
    """Deltas over ``base``; project, image, buckets, cluster and addresses are yours to fill in."""
    config = base.get_config()
    config.name = "trace-30b-v5p"
    config.targets = ("gke", "ssh")
    config.project = "my-project"
    config.zone = "us-east5-a"
    config.image = "us-docker.pkg.dev/my-project/trace/trainer:tpu"
    config.model = "gs://my-bucket/models/Qwen3-30B-A3B"
    config.workdir = "gs://my-bucket/runs/qwen3-30b-v5p64"
    config.environments = ("gs://my-bucket/runs/synthesis/environments",)
    config.secrets = ("WANDB_API_KEY=wandb-api-key", "TRACE_RELAY_KEY=trace-relay-key")
    config.trainer.config = "configs/qwen3_30b_a3b.py:v5p"
    config.trainer.accelerator = "v5p"
    config.trainer.topology = "2x4x4"
    config.trainer.spot = True
    config.trainer.mesh.data = 16
    config.trainer.mesh.expert = 2
    config.rollout.image = "us-docker.pkg.dev/my-project/trace/rollout:cuda"
    config.rollout.machines = 2
    config.rollout.tensor_parallel = 2
    config.gke.cluster = "trace"
    config.gke.service_account = "trace"
    config.ssh.rollout_hosts = ("me@10.202.0.11", "me@10.202.0.12")
    return config.lock()
