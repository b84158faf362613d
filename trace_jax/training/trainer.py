"""GRPO from training grounds to adapters on disk, resumable at any step."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial

from etils import epath
from jax.sharding import Mesh

from trace_jax.chat.renderer import Renderer
from trace_jax.contract.adapter import AdapterManifest
from trace_jax.engines.protocol import Engine
from trace_jax.errors import UserError
from trace_jax.models.decoder import Decoder
from trace_jax.parallel.processes import anywhere, is_first
from trace_jax.parallel.termination import Terminated, Termination
from trace_jax.rollout.agent import Limits
from trace_jax.rollout.player import Player
from trace_jax.telemetry.compiles import CompileLog
from trace_jax.training.config import GRPOConfig
from trace_jax.training.job import Job, StepReport
from trace_jax.training.learner import Learner
from trace_jax.training.run import Run
from trace_jax.training.sample import Sample


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
    termination: Termination | None = None,
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
        termination: SIGTERM gives up the rollouts of a step, or lets its update finish, and ends the run in all
            processes when the last checkpoint is whole.

    Raises:
        Terminated: SIGTERM has come to one of the processes.
        UserError: a checkpoint belongs to another base, seed or LoRA shape, or is damaged, or the metrics are; the
            engine refused the adapter; every rollout of a step broke.
        FloatingPointError: a reward, log-probability, loss or gradient is not finite. No checkpoint is written for
            that step.
    """
    if len(jobs) > 1 and config.max_to_keep < 2:
        raise UserError(
            f"max_to_keep {config.max_to_keep} is too few for {len(jobs)} adapters: a run killed between their "
            "checkpoints goes back to the ones before, so keep 2"
        )
    player = None if engine is None else Player(engine, renderer, limits, base, config.concurrency, termination)
    learner = Learner(decoder, config, [job.name for job in jobs], mesh)
    with player or nullcontext(), ExitStack() as stack:
        runs = [
            stack.enter_context(
                Run(job, learner, number, config, base, decoder.config, engine, player, tensorboard, wandb)
            )
            for number, job in enumerate(jobs)
        ]
        _align(runs)
        if is_first():
            stack.enter_context(CompileLog(epath.Path(jobs[0].directory) / "compiles.jsonl"))
        while going := [run for run in runs if not run.finished()]:
            if anywhere(termination is not None and termination.requested):
                raise Terminated
            if config.max_staleness:  # in lock-step each begins when the one before has played
                for run in going:
                    run.begin()
            samples = [one for run in going for one in run.collect()]
            update = partial(_update, learner, samples, going)
            metrics = player.beside(update) if player is not None and config.max_staleness else update()
            for run in going:
                report = run.record(metrics[run.number])
                if progress is not None:
                    progress(report)
    return [run.export(run.directory, run.name) for run in runs]


def _update(learner: Learner, samples: Sequence[Sample], runs: Sequence[Run]) -> list[dict[str, float]]:
    """The metrics of an update; the last checkpoints are on disk then.

    All runs have the checkpoint before when one begins the next, so that ``_align`` finds it.
    """
    metrics = learner.update(samples)
    for run in runs:
        run.settle()
    return metrics


def _align(runs: Sequence[Run]) -> None:
    """Go back to the step that all unfinished runs have: a kill may have found some with one checkpoint more."""
    for run in runs:
        run.restore()
    going = [run for run in runs if not run.finished()]
    common = min((run.counters.step for run in going), default=0)
    for run in going:
        if run.counters.step > common:
            run.go_back(common)
