"""Clusters that cannot exist are refused with the value and the remedy; those that can have the hosts they should."""

import importlib
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from clusters.accelerators import TPUS
from configs.clusters import base
from trace_jax.errors import UserError
from trace_jax.parallel.mesh import MeshSettings
from trace_jax.planning.topology import parse_topology

TPU, GPU = "qwen3_30b_v6e64", "qwen3_8b_h100"


@pytest.mark.parametrize(
    ("accelerator", "topology", "chips", "cloud_type"),
    [  # from the Cloud TPU pages of each generation
        ("v5e", "4x4", 16, "v5litepod-16"),
        ("v5p", "2x2x1", 4, "v5p-8"),
        ("v5p", "2x4x4", 32, "v5p-64"),
        ("v5p", "4x4x4", 64, "v5p-128"),
        ("v5p", "8x8x8", 512, "v5p-1024"),
        ("tpu7x", "4x4x4", 64, "tpu7x-128"),
        ("v6e", "2x4", 8, "v6e-8"),
        ("v6e", "8x8", 64, "v6e-64"),
        ("v6e", "16x16", 256, "v6e-256"),
    ],
)
def test_slices_have_the_documented_size_and_name(accelerator, topology, chips, cloud_type):
    tpu = TPUS[accelerator]
    assert (tpu.chips(topology), tpu.cloud_type(topology)) == (chips, cloud_type)
    assert tpu.is_compact(topology)


def test_a_long_shape_is_not_what_its_number_of_chips_names():
    v5p = TPUS["v5p"]
    assert v5p.is_compact("4x8x8") and not v5p.is_compact("4x4x16")
    assert (v5p.xpk_type("4x8x8"), v5p.xpk_type("4x4x16")) == ("v5p-512", "v5p-4x4x16")


@pytest.mark.parametrize("number", [8, 16, 32, 64, 128, 256, 512, 1024])
@pytest.mark.parametrize("generation", TPUS)
def test_the_planner_and_the_clouds_mean_the_same_slice_by_a_name(generation, number):
    tpu = TPUS[generation]
    if tpu.chip.rank == 2 and number > 256:
        return
    planned = parse_topology(f"{generation}-{number}")
    topology = planned.name.partition(":")[2]
    assert tpu.cloud_type(topology) == f"{tpu.cloud}-{number}" and tpu.chips(topology) == planned.chips


def test_hosts_are_chips_over_chips_per_host_times_slices(cluster):
    mesh = {"trainer.mesh.data": 48, "trainer.slices": 3}
    assert cluster(TPU).trainer.machines == 16
    assert cluster(TPU, **mesh).trainer.machines == 48
    assert cluster(GPU).trainer.machines == 1
    one_box = {"trainer.topology": "2x4", "trainer.chips_per_host": 8, "trainer.mesh.data": 2}
    assert cluster(TPU, **one_box).trainer.machines == 1


def test_tpu7x_has_two_devices_a_chip(cluster):
    changes = {"trainer.accelerator": "tpu7x", "trainer.topology": "4x4x4", "trainer.mesh.data": 32}
    made = cluster(TPU, **changes)
    assert (made.trainer.machines, made.trainer.devices) == (16, 128)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (TPU, {"trainer.accelerator": "v9"}, "trainer.accelerator 'v9': unknown; use v5e, v5p, v6e"),
        (TPU, {"trainer.topology": "8x9"}, "trainer.topology '8x9': not a topology of v6e; use 1x1"),
        (TPU, {"trainer.topology": "8x"}, "'8x': not a topology"),
        (TPU, {"trainer.accelerator": "v5p", "trainer.topology": "8x4x4"}, "'8x4x4': not a topology of v5p"),
        (
            TPU,
            {"trainer.accelerator": "v5p", "trainer.topology": "v5p-64"},
            "trainer.topology 'v5p-64' is the name of a slice with 32 chips: write its shape, 2x4x4",
        ),
        (TPU, {"trainer.topology": "tpu-v6e-64"}, "with 64 chips: write its shape, 8x8"),
        (TPU, {"trainer.chips_per_host": 8}, "chips_per_host is 8: the 64 chips of a slice 8x8 lie in machines with 4"),
        (TPU, {"trainer.hosts": 8}, "trainer.hosts is 8: the topology gives 16 machines"),
        (TPU, {"trainer.mesh.data": 8}, "8 × 1 × 1 × 4 = 32 devices, but the machines have 64"),
        (
            TPU,
            {"trainer.slices": 2, "trainer.mesh.data": 1, "trainer.mesh.fsdp": 32},
            "trainer.mesh.data is 1, not a multiple of 2 slices",
        ),
        (TPU, {"workdir": ""}, "workdir is empty"),
        (TPU, {"workdir": "/data/run"}, "workdir '/data/run' is lost with a spot machine: use gs://"),
        (TPU, {"workdir": "/data/run", "trainer.spot": False}, "is local, but 16 hosts share it: use gs://"),
        (
            GPU,
            {"workdir": "/data/run", "trainer.spot": False, "rollout.spot": False},
            "lost with the pod or the machine",
        ),
        (GPU, {"workdir": "run", "trainer.spot": False, "targets": ("ssh",)}, "use gs://… or an absolute path"),
        (TPU, {"model": "Qwen/Qwen3-30B-A3B"}, "model 'Qwen/Qwen3-30B-A3B': use gs://BUCKET/PATH"),
        (TPU, {"model": "gs://b/$(reboot)"}, "model is 'gs://b/$(reboot)'"),
        (TPU, {"name": "Trace_30B"}, "name is 'Trace_30B'"),
        (TPU, {"targets": ("slurm",)}, "targets.0 is 'slurm': Input should be 'gke', 'skypilot' or 'ssh'"),
        (TPU, {"max_restarts": -1}, "max_restarts is -1"),
        (TPU, {"gke.service_account": ""}, "gke.service_account is empty"),
        (TPU, {"gke.namespace": "My_Space"}, "gke.namespace is 'My_Space'"),
        (TPU, {"gke.service_account": "Trace"}, "gke.service_account is 'Trace'"),
        (TPU, {"trainer.reservation": "r/1"}, "trainer.reservation is 'r/1'"),
        (TPU, {"zone": "US_east5"}, "zone is 'US_east5'"),
        (TPU, {"max_restarts": 1 << 31}, "max_restarts is 2147483648"),
        (TPU, {"grace_seconds": 0}, "grace_seconds is 0"),
        (TPU, {"gke.cluster": ""}, "gke.cluster is empty"),
        (TPU, {"rollout.accelerator": "v6e"}, "rollout.accelerator 'v6e': SGLang needs GPUs"),
        (TPU, {"rollout.tensor_parallel": 3}, "rollout.tensor_parallel 3 does not divide 8"),
        (TPU, {"targets": ("skypilot",), "rollout.spot": True}, "address must last"),
        (
            TPU,
            {"targets": ("skypilot",), "trainer.slices": 2, "trainer.mesh.data": 32},
            "trainer.slices is 2: SkyPilot starts one slice",
        ),
        (
            TPU,
            {"targets": ("ssh",), "trainer.accelerator": "tpu7x", "trainer.topology": "4x4x4", "trainer.mesh.data": 32},
            "'tpu7x': no TPU VMs of it",
        ),
        (TPU, {"targets": ("ssh",)}, "ssh.rollout_hosts names 0 machines, but the configuration has 2"),
        (GPU, {"trainer.hosts": 0}, "trainer.hosts is 0"),
        (GPU, {"trainer.topology": "2x4"}, "GPUs have neither"),
        (GPU, {"trainer.chips_per_host": 6, "trainer.mesh.data": 6}, "have 1, 2, 4 or 8 GPUs"),
        (GPU, {"rollout.accelerator": "H200"}, "a SkyPilot task has one kind of machine"),
        (GPU, {"rollout.spot": False}, "a SkyPilot task has one kind of machine"),
        (GPU, {"ssh.rollout_hosts": ("me@8.8.8.8",)}, "'me@8.8.8.8' is not user@internal-address"),
        (GPU, {"ssh.rollout_hosts": ("me@gpu.example.com",)}, "is not user@internal-address"),
        (GPU, {"ssh.trainer_hosts": ("me@127.0.0.1",)}, "is not user@internal-address"),
        (GPU, {"trainer.flags": ("--note=a\nb",)}, "trainer.flags.0 is"),
        (GPU, {"project": ""}, "project is empty: secrets come from its Secret Manager"),
    ],
)
def test_an_impossible_cluster_is_refused_in_one_line(cluster, name, changes, words):
    with pytest.raises(UserError) as refused:
        cluster(name, **changes)
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["hf_AbCdEf0123456789", "sk-abcdef", "AIzaSyA", "a b", "x" * 49])
def test_a_secret_that_is_no_name_is_refused_and_not_repeated(cluster, value):
    with pytest.raises(UserError) as refused:
        cluster(TPU, secrets=(f"HF_TOKEN={value}",))
    assert "HF_TOKEN" in str(refused.value) and value not in str(refused.value)


def test_every_field_is_documented_with_its_type():
    def leaves(config, prefix=""):
        for name in config:
            value = config.get(name)
            yield from leaves(value, f"{prefix}{name}.") if hasattr(value, "is_locked") else [prefix + name]

    source = Path(base.__file__).read_text(encoding="utf-8")
    found = re.findall(r"^    (?:config\.)?(\w+(?:\.\w+)*) = .*?  # (int|str|bool|tuple of str)[:,] \S", source, re.M)
    documented = {name for name, _ in found}
    names = {name.removeprefix("trainer.") if "mesh." in name else name for name in leaves(base.get_config())}
    assert documented == names


@pytest.mark.parametrize("name", ["qwen3_30b_v5p64", "qwen3_30b_v5p128", TPU, GPU])
def test_a_shipped_cluster_has_the_mesh_of_its_training_config(cluster, name):
    """Which is the one that was planned."""
    trainer = cluster(name).trainer
    path, _, chips = trainer.config.partition(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    planned = MeshSettings(**module.get_config(chips).mesh).resolve(trainer.devices)
    assert dict(trainer.mesh) == asdict(planned)


@pytest.mark.parametrize(
    ("name", "topology", "machines", "cloud_type"),
    [
        ("qwen3_30b_v5p64", "2x4x4", 8, "v5p-64"),
        ("qwen3_30b_v5p128", "4x4x4", 16, "v5p-128"),
        (TPU, "8x8", 16, "v6e-64"),
    ],
)
def test_a_shipped_cluster_is_the_slice_in_its_name(cluster, name, topology, machines, cloud_type):
    trainer = cluster(name).trainer
    assert (trainer.topology, trainer.machines) == (topology, machines)
    assert trainer.tpu.cloud_type(trainer.topology) == cloud_type
