"""Turns a configuration into the run, and the programs, that ``launch.plan`` compiles."""

from ml_collections import ConfigDict

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.config_json import read_config
from trace_jax.planning.compile import Job
from trace_jax.planning.job import Decoding, Run, training_job
from trace_jax.planning.settings import PlanSettings
from trace_jax.planning.topology import Topology
from trace_jax.run_settings import read_section, read_settings


def training(config: ConfigDict, topology: Topology) -> Job:
    """The programs of one optimiser step of the configured run."""
    return training_job(configured(config), topology)


def configured(config: ConfigDict) -> Run:
    """The run that a configuration describes. Raises UserError for an invalid setting."""
    settings, planned = read_settings(config), read_section(config, PlanSettings)
    return Run(
        model=_model(planned.model or settings.base.path),
        training=settings.training,
        mesh=settings.mesh,
        dtype=settings.base.dtype,
        adapters=planned.adapters,
        prompt_tokens=planned.prompt_tokens,
        completion_tokens=planned.completion_tokens,
        trained_share=planned.trained_share,
        decoding=Decoding(planned.decode_slots, settings.engine.capacity) if planned.decode_slots else None,
    )


def _model(name: str) -> DecoderConfig:
    if not name:
        raise UserError("neither plan.model nor base.path is set: name the config.json of a model")
    return read_config(name)
