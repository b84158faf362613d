"""A trainer's disk and a server's."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fake_sglang import FakeSGLang
from safetensors.numpy import save_file


def write_adapter(directory: Path, width: int = 64, rank: int = 4, **settings: object) -> Path:
    """A fresh random adapter of two layers in PEFT's format."""
    rng, targets = np.random.default_rng(), ("q_proj", "k_proj", "v_proj")
    tensors = {}
    for layer in range(2):
        for target in targets:
            name = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            tensors[f"{name}.lora_A.weight"] = rng.standard_normal((rank, width), np.float32)
            tensors[f"{name}.lora_B.weight"] = rng.standard_normal((width, rank), np.float32)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 8,
        "target_modules": list(targets),
        "bias": "none",
        **settings,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    """The two files of an adapter."""
    return {name: (directory / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")}


@dataclass
class RelaySetup:
    """A relay, its disk and its server."""

    url: str
    directory: Path
    sglang: FakeSGLang

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def left_over(self) -> list[Path]:
        """What unfinished transfers have left."""
        return list((self.directory / ".incoming").iterdir())
