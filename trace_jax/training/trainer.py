"""GRPO from training grounds to adapters on disk, resumable at any step."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from jax.sharding import Mesh

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.record import ContractError
from trace_jax.contract.trajectory import Trajectory
from trace_jax.models.decoder import Decoder
from trace_jax.parallel.processes import from_first, is_first
from trace_jax.rollout.agent import EpisodeSpec, Limits, collect
from trace_jax.rollout.chat import Renderer
from trace_jax.rollout.engine import Engine
from trace_jax.telemetry.compiles import CompileLog
from trace_jax.training.config import GRPOConfig
from trace_jax.training.learner import Learner
from trace_jax.training.run import Job, Run, StepReport


def train(
    jobs: Sequence[Job],
    *,
    decoder: Decoder,
    engine: Engine | None,
    renderer: Renderer,
    config: GRPOConfig,
    base: str,
    limits: Limits,
    mesh: Mesh | None = None,
    tensorboard: bool = True,
    wandb: bool = False,
    progress: Callable[[StepReport], None] | None = None,
) -> list[AdapterManifest]:
    """Train one adapter for each job, all in the same passes through the base; unfinished ones are continued.

    Each writes to its directory ``adapter.json`` (the manifest, last), ``peft/``, ``checkpoints/``, ``metrics.jsonl``,
    and, for ``config.snapshots``, ``snapshots/ROLLOUTS/`` with manifest and PEFT export; the first one
    ``compiles.jsonl`` as well. Killed at any moment and called again with the same arguments, it ends with the same
    weights and metrics, times apart. Adapters learn as they would alone, up to rounding.

    Args:
        decoder: the base; it is not changed.
        engine: it must serve the same weights. With several processes the first one has it, and plays for all.
        base: revision of the base model.
        mesh: where to compute the updates; by default one device.

    Raises:
        ContractError: a checkpoint belongs to another base, seed or LoRA shape, or is damaged, or the metrics are; the
            engine refused the adapter; every rollout of a step broke.
        FloatingPointError: a reward, log-probability, loss or gradient is not finite. No checkpoint is written for
            that step.
    """

    def rollouts(specs: list[EpisodeSpec]) -> list[Trajectory]:
        played: list[Trajectory] = []

        def play() -> bytes:
            assert engine is not None, "the first process has the engine"
            played.extend(collect(specs, engine, renderer, limits, base, config.concurrency))
            return b"\n".join(trajectory.model_dump_json().encode() for trajectory in played)

        lines = from_first(play).split(b"\n")
        return played or [Trajectory.model_validate_json(line) for line in lines]

    learner = Learner(decoder, config, len(jobs), mesh)
    with ExitStack() as stack:
        runs = [
            stack.enter_context(
                Run(job, learner, number, config, base, decoder.config, engine, rollouts, tensorboard, wandb)
            )
            for number, job in enumerate(jobs)
        ]
        _align(runs)
        if is_first():
            stack.enter_context(CompileLog(jobs[0].directory / "compiles.jsonl"))
        while going := [run for run in runs if not run.finished()]:
            samples = [one for run in going for one in run.collect()]
            metrics = learner.update(samples) if samples else [{}] * len(runs)
            for run in going:
                report = run.record(metrics[run.number])
                if progress is not None:
                    progress(report)
    return [run.export(run.directory, run.name) for run in runs]


def _align(runs: Sequence[Run]) -> None:
    """Go back to the step that all unfinished runs have: a kill may have found some with one checkpoint more."""
    for run in runs:
        run.restore()
    going = [run for run in runs if not run.finished()]
    common = min((run.counters.step for run in going), default=0)
    for run in going:
        if run.counters.step > common and not run.restore(common):
            raise ContractError(
                f"{run.directory}: checkpoints start at step {run.counters.step}, those of {going[0].directory} end at "
                f"{common}: train them one by one, or move its checkpoints away to train it anew"
            )
