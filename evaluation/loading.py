"""Loads the adapter of a checkpoint."""

from pathlib import Path

from evaluation.checkpoints import Checkpoint
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.files import read_document
from trace_jax.errors import UserError
from trace_jax.models.formats.peft import load_peft
from trace_jax.models.lora import LoRA
from trace_jax.session import Base, load_adapters
from trace_jax.training.saved_adapter import load_saved_adapter


def load_checkpoint(checkpoint: Checkpoint, base: Base) -> tuple[LoRA, int]:
    """The adapter (A = 1) and the rollouts of its training, which a PEFT directory does not tell: then 0.

    Raises UserError for a checkpoint of another base, and for one that is damaged or was changed. A PEFT directory of
    others names its base by a path or a name, so only its shapes are compared.
    """
    if checkpoint.kind == "manifest":
        manifest = read_document(checkpoint.path, AdapterManifest)
        return load_adapters([(checkpoint.path, manifest)], base)[manifest.name], manifest.rollouts
    if checkpoint.kind == "peft":
        return load_peft(Path(checkpoint.path), base.config), 0
    saved = load_saved_adapter(checkpoint.path)
    if saved.base != base.revision:
        raise UserError(
            f"{checkpoint.path}: checkpoint of base {saved.base}, the model is {base.revision}: use its own base"
        )
    return saved.lora, saved.rollouts
