"""Turns a config into the run, and the programs, that ``launch.plan`` compiles."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.parallel.mesh import MeshSettings
from trace_jax.planning.compile import Job
from trace_jax.planning.job import Decoding, Run, training_job
from trace_jax.planning.topology import Topology
from trace_jax.training.config import GRPOConfig


def training(config: ConfigDict, topology: Topology) -> Job:
    """The programs of one optimiser step of the configured run."""
    return training_job(configured(config), topology)


def configured(config: ConfigDict) -> Run:
    """The run that a config describes. Raises UserError for a setting that it cannot have."""
    settings = config.plan
    return Run(
        model=_model(settings.model or config.base.path),
        training=GRPOConfig(**{**config.training, "max_steps": config.training.max_steps or 1}),
        mesh=MeshSettings(**config.mesh),
        dtype=config.base.dtype,
        adapters=settings.adapters,
        prompt_tokens=settings.prompt_tokens,
        completion_tokens=settings.completion_tokens,
        trained_share=settings.trained_share,
        decoding=Decoding(settings.decode_slots, config.engine.capacity) if settings.decode_slots else None,
    )


def _model(name: str) -> DecoderConfig:
    if not name:
        raise UserError("neither plan.model nor base.path is set: name the config.json of a model")
    path = Path(name)
    path = path / "config.json" if path.is_dir() else path
    try:
        return DecoderConfig.from_huggingface(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a model's config.json ({error}): see plan.model") from None
