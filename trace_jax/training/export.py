"""Exporting an adapter: PEFT files and the manifest that vouches for them."""

import os

from etils import epath

from trace_jax.contract.adapter import MANIFEST, AdapterManifest, peft_checksums
from trace_jax.contract.files import write_document
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import LoRA
from trace_jax.parallel.processes import from_first
from trace_jax.telemetry.metrics import read_metrics
from trace_jax.training.counters import Counters
from trace_jax.training.job import Job, RunContext

TIMES = "time/"  # prefix of the metrics that differ between two equal runs


def export(
    lora: LoRA, job: Job, context: RunContext, *, counters: Counters, directory: epath.Path, name: str
) -> AdapterManifest:
    """Write an adapter into ``directory`` under ``name``. With several processes all have to call it.

    An export holds:

    - ``peft/adapter_model.safetensors``: the weights, float32, in PEFT's names and layout. For each layer (and each
      expert) and each target ``lora_A.weight [R, in]`` and ``lora_B.weight [out, R]``, not multiplied by the scale.
    - ``peft/adapter_config.json``: PEFT's configuration; ``r``, ``lora_alpha``, ``target_modules`` and, as
      ``base_model_name_or_path``, the revision of the base.
    - ``adapter.json``: the ``AdapterManifest``, which holds the SHA-256 of both files. It is written last, so an export
      with a manifest is whole. Its path of the checkpoint is relative to ``directory``. Its metrics are those of the
      last step, without times.

    Two runs that are equal up to times write equal bytes.

    Args:
        lora: the adapter (A = 1), on the host.

    Raises:
        UserError: a weight is NaN or infinite.
    """

    def write() -> bytes:
        save_peft(lora, context.model, directory / "peft", context.base)
        rows = read_metrics(job.directory) if counters.step else {}
        last = rows.get(counters.step, {})
        manifest = AdapterManifest(
            name=name,
            capabilities=job.capabilities,
            environments=tuple(environment.name for environment in job.environments),
            base=context.base,
            rank=context.training.rank,
            alpha=context.training.alpha,
            target_modules=context.training.target_modules,
            peft="peft",
            files=peft_checksums(directory / "peft"),
            checkpoint=os.path.relpath(epath.Path(job.directory) / "checkpoints", directory),
            steps=counters.step,
            rollouts=counters.rollouts,
            seed=context.seed,
            metrics={key: value for key, value in last.items() if not key.startswith(TIMES)},
        )
        write_document(directory / MANIFEST, manifest)
        return manifest.model_dump_json().encode()

    return AdapterManifest.model_validate_json(from_first(write))
