"""Weights straight into their sharding: on eight devices, by two processes, within a bound on the host's memory."""

import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from random_model import expected_params, write_random

from trace_jax.models.config import DecoderConfig

HERE = Path(__file__).parent
DENSE = DecoderConfig(96, 32, 3, 4, 2, 16, 48)
EXPERTS = {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MIXTURE = DecoderConfig(96, 32, 3, 4, 2, 16, 48, **EXPERTS)


def start(script: str, *arguments: object) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ["PYTHONPATH"]])}
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"  # what is freed is given back at once and does not blur the peak
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen) -> dict:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(out.splitlines()[-1])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    "config", [pytest.param(DENSE, marks=pytest.mark.slow, id="dense"), pytest.param(MIXTURE, id="mixture")]
)
def test_every_device_gets_its_part_and_every_process_reads_only_its_own(config, processes, rng, tmp_path):
    tensors = write_random(tmp_path / "model", config, rng)
    reference = tmp_path / "reference.pkl"
    reference.write_bytes(pickle.dumps(expected_params(config, tensors)))
    port = free_port()
    running = [
        start("sharded_loading.py", tmp_path / "model", reference, index, processes, port) for index in range(processes)
    ]
    reports = [finished(process) for process in running]
    assert all(report["compared"] == report["leaves"] * 8 // processes for report in reports)
    stored = sum(value.nbytes for value in tensors.values())
    norms = sum(value.nbytes for name, value in tensors.items() if "norm" in name)
    matrices = stored - norms  # split in two among processes; norms are read by all of them
    needed = matrices // processes + norms
    assert all(needed <= report["read"] < 1.1 * needed for report in reports)  # a parameter's last blocks may overlap


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("experts", [0, 16])
def test_the_host_needs_little_beside_its_shards(experts, dtype, devices, rng, tmp_path):
    def config(vocab: int, D: int, heads: int, F: int) -> DecoderConfig:
        mixture = (
            {
                "model_type": "qwen3_moe",
                "num_experts": experts,
                "num_experts_per_tok": 2,
                "moe_intermediate_size": F // 8,
            }
            if experts
            else {}
        )
        return DecoderConfig(vocab, D, 6, heads, heads // 2, 64, F, tie_embeddings=True, **mixture)

    tensors = write_random(tmp_path / "model", config(16384, 1024, 16, 4096), rng)
    write_random(tmp_path / "tiny", config(128, 64, 4, 64), rng)
    report = finished(start("measure_loading.py", tmp_path / "model", dtype, devices, tmp_path / "tiny"))
    needed = sum(value.size for value in tensors.values()) * (2 if dtype == "bfloat16" else 4)
    assert needed > 200e6 and needed <= report["shards"] < 1.01 * needed
    assert report["above"] <= 1.5 * report["largest"] + report["shards"]
    assert report["saving"] <= 2.5 * report["largest"]
    assert report["rising"] and report["last_step"] == [len(tensors)] * 2
