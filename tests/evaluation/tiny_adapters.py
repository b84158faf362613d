"""Adapters of a tiny model, and their gate, as they lie on disk after a run."""

from pathlib import Path

import jax
import numpy as np
from etils import epath
from flax import nnx

from trace_jax.chat.tokenizer import save_tokenizer, train_tokenizer
from trace_jax.contract.adapter import AdapterManifest, peft_checksums
from trace_jax.contract.digest import checksum
from trace_jax.contract.files import write_document
from trace_jax.engines.settings import EngineSettings
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.settings import TargetSettings
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.huggingface import revision, save
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.models.settings import BaseModelSettings
from trace_jax.rollout.settings import EvaluationSettings, RolloutSettings
from trace_jax.routing.gate import Gate, save_gate
from trace_jax.routing.table import build_table
from trace_jax.run_settings import RunSettings


class ThreeTickets(Helpdesk):
    """The first three tickets of each split."""

    def tasks(self, split):
        return super().tasks(split)[:3]


def make_adapters(root: Path) -> epath.Path:
    """``root`` with a base, two adapters, and a gate that sends everything to the second."""
    config = DecoderConfig(400, 16, 1, 2, 1, 8, 16)
    save_tokenizer(train_tokenizer(["order customer refund"], 400), root)
    save(Decoder(config, nnx.Rngs(0)), config, root / "base", tokenizer_files=[root / "tokenizer.json"])
    base = revision(root / "base")
    manifests = []
    for i, name in enumerate(("look", "finish")):
        fresh = init_lora(config, 2, 8.0, key=jax.random.key(i))
        grown = jax.tree.map(lambda x, i=i: x + 0.1 * jax.random.normal(jax.random.key(i), x.shape), fresh.weights)
        save_peft(LoRA(grown, fresh.scale), config, root / "adapters" / name / "peft", base)
        manifest = AdapterManifest(
            name=name,
            capabilities=(name,),
            environments=(),
            base=base,
            rank=2,
            alpha=8.0,
            target_modules=tuple(fresh.targets),
            peft="peft",
            files=peft_checksums(root / "adapters" / name / "peft"),
            checkpoint="checkpoints",
            steps=1,
            rollouts=100 - 40 * i,
            seed=0,
        )
        write_document(root / "adapters" / name / "adapter.json", manifest)
        manifests.append(manifest)
    zero, one = np.zeros(16), np.ones(16)
    choices, bias = ("", "look", "finish"), np.array([-9.0, 9.0])
    gate = root / "routing" / "gate.safetensors"
    save_gate(gate, Gate(base, choices, "mean", zero, one, np.zeros((16, 2)), bias))
    digest = checksum(gate).sha256
    table = build_table(
        base, "gate", manifests, {n: n for n in choices}, gate=gate.name, gate_sha256=digest, rollouts=5
    )
    write_document(root / "routing" / "route_table.json", table)
    return epath.Path(root)


def settings_of(run: epath.Path) -> RunSettings:
    """Settings to evaluate them on three tickets, in seconds."""
    return RunSettings(
        base=BaseModelSettings(path=str(run / "base")),
        target=TargetSettings(environment=f"{__name__}:ThreeTickets"),
        evaluation=EvaluationSettings(trials=2),
        rollout=RolloutSettings(max_turns=2, max_turn_tokens=4),
        engine=EngineSettings(slots=8),
    )
