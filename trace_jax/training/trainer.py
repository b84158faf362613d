"""GRPO from training environments to adapters on disk, resumable at any step."""

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
from trace_jax.rollout.player import Player
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.telemetry.compiles import CompileLog
from trace_jax.telemetry.settings import TelemetrySettings
from trace_jax.training.job import Job, RunContext, StepReport
from trace_jax.training.learner import Learner
from trace_jax.training.run import Run
from trace_jax.training.sample import Sample
from trace_jax.training.settings import GRPOConfig, check_sampling

_TELEMETRY = TelemetrySettings()


def train(
    jobs: Sequence[Job],
    *,
    decoder: Decoder,
    engine: Engine | None,
    renderer: Renderer,
    training: GRPOConfig,
    rollout: RolloutSettings,
    seed: int,
    base: str,
    mesh: Mesh | None = None,
    termination: Termination | None = None,
    telemetry: TelemetrySettings = _TELEMETRY,
    progress: Callable[[StepReport], None] | None = None,
) -> list[AdapterManifest]:
    """Train one adapter for each job, all in the same passes through the base; unfinished jobs are continued.

    Each job's directory gets ``adapter.json`` (the manifest, written last), ``peft/``, ``checkpoints/``,
    ``metrics.jsonl`` and, for ``training.snapshots``, ``snapshots/ROLLOUTS/`` with a manifest and a PEFT export. The
    first job's directory gets ``compiles.jsonl`` as well. A run that is killed at any moment and started again with the
    same arguments ends with the same weights and metrics, times apart. Adapters learn as they would alone, up to
    rounding.

    Args:
        decoder: the base; it is not changed.
        engine: it must serve the same weights. With several processes the first one has it and plays for all; the
            others pass None.
        seed: of the initial adapters, the order of tasks, and sampling.
        base: revision of the base model.
        mesh: where to compute the updates; by default one device.
        termination: SIGTERM cancels the rollouts of a step, or lets its update finish. The run then ends in all
            processes, once the last checkpoint is whole.
        progress: called after each step of each adapter.

    Raises:
        Terminated: one of the processes got SIGTERM.
        UserError: rollouts are greedy; a checkpoint belongs to another base, seed or LoRA shape; a checkpoint or the
            metrics are damaged; or every rollout of a step broke.
        EngineError: the engine refused the adapter, or is gone.
        FloatingPointError: a reward, log-probability, loss or gradient is not finite. No checkpoint is written for
            that step.
    """
    check_sampling(rollout)
    if len(jobs) > 1 and training.max_to_keep < 2:
        raise UserError(
            f"training.max_to_keep is {training.max_to_keep}, too few for {len(jobs)} adapters: a run killed between "
            "their checkpoints goes back to the ones before, so keep 2"
        )
    player = None
    if engine is not None:
        player = Player(engine=engine, renderer=renderer, settings=rollout, base=base, termination=termination)
    names = [job.name for job in jobs]
    learner = Learner(decoder, training, temperature=rollout.temperature, seed=seed, names=names, mesh=mesh)
    context = RunContext(
        training=training, rollout=rollout, telemetry=telemetry, seed=seed, base=base, model=decoder.config
    )
    with player or nullcontext(), ExitStack() as stack:
        runs = [
            stack.enter_context(Run(job, context, learner, index=index, engine=engine, player=player))
            for index, job in enumerate(jobs)
        ]
        _restore(runs)
        if is_first():
            stack.enter_context(CompileLog(epath.Path(jobs[0].directory) / "compiles.jsonl"))
        while unfinished := [run for run in runs if not run.finished()]:
            if anywhere(termination is not None and termination.requested):
                raise Terminated
            if training.max_staleness:  # in lock-step each run begins when the one before it has collected
                for run in unfinished:
                    run.begin()
            samples = [sample for run in unfinished for sample in run.collect()]
            update = partial(_update, learner, samples, unfinished)
            metrics = player.run_in_thread(update) if player is not None and training.max_staleness else update()
            for run in unfinished:
                report = run.record(metrics[run.index])
                if progress is not None:
                    progress(report)
    return [run.export() for run in runs]


def _update(learner: Learner, samples: Sequence[Sample], runs: Sequence[Run]) -> list[dict[str, float]]:
    """Update on ``samples``, and wait until the last checkpoints are on disk; returns the metrics of every adapter.

    No run begins a checkpoint before all runs have the one before, so ``_restore`` finds a step that all have.
    """
    metrics = learner.update(samples)
    for run in runs:
        run.wait_for_checkpoint()
    return metrics


def _restore(runs: Sequence[Run]) -> None:
    """Restore all runs, and go back to the last step that all unfinished ones have.

    A kill may have come when only some of them had written the newest checkpoint.
    """
    for run in runs:
        run.restore()
    unfinished = [run for run in runs if not run.finished()]
    common = min((run.counters.step for run in unfinished), default=0)
    for run in unfinished:
        if run.counters.step > common:
            run.go_back(common)
