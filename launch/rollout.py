"""Collect trajectories: an agent plays an environment, and every episode goes to DIR/trajectories.jsonl as it ends.

    python -m launch.rollout --config=configs/quickstart.py --workdir=DIR
    python -m launch.rollout --config=configs/quickstart.py --workdir=DIR --split=held_out \
        --environment=RUN/environments/NAME.json --adapter=RUN/adapters/NAME/adapter.json

Plays ``rollout.trials`` episodes on each of the first ``target.train_tasks`` tasks (``target.held_out_tasks`` of those
held out). Interrupted, the same command goes on; asked for more tasks or trials, it plays those that are missing.
Episodes that broke are played again by the next start. What the base played on training tasks can be analysed:

    python -m launch.analyze --config=configs/quickstart.py --config.source.path=DIR/trajectories.jsonl --workdir=OUT
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from trace_jax.contract.adapter import AdapterManifest
from trace_jax.contract.files import read_document
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Split, Trajectory
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.source import Source, load_source
from trace_jax.errors import UserError
from trace_jax.program import run
from trace_jax.relay.files import checksums
from trace_jax.rollout.plan import plan_episodes
from trace_jax.rollout.recording import Recording
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.session import Base, Manifests, engine_settings, load_adapters, load_base, read_settings, serve
from trace_jax.telemetry.progress import Progress

ENVIRONMENT = flags.DEFINE_string(
    "environment",
    None,
    "a target or environment, by name or module:Class, or a manifest ….json; else the config's target",
)
ADAPTER = flags.DEFINE_string("adapter", None, "manifest (adapter.json) of the adapter that plays; else the base plays")
SPLIT = flags.DEFINE_enum("split", "train", ["train", "held_out"], "which tasks to play")

TRAJECTORIES = "trajectories.jsonl"
_FIXED = ("temperature", "max_turns", "max_episode_tokens", "max_turn_tokens", "max_seconds")  # of a work directory


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Play what is not recorded yet, or broke."""
    split = cast(Split, SPLIT.value)
    tasks = config.target.train_tasks if split == "train" else config.target.held_out_tasks
    source = load_source(ENVIRONMENT.value or config.target.environment, split, tasks)
    engine_settings(config)
    settings = read_settings(config, RolloutSettings)
    manifests = _manifests()
    base = load_base(config)
    adapters = load_adapters(manifests, base)
    open_workdir(workdir, _identity(config, base, source, manifests))
    specs = plan_episodes(source, settings, seed=config.seed, adapter=next(iter(adapters), None))
    path = workdir / TRAJECTORIES
    recording = Recording(path)
    if missing := recording.missing(specs):
        with (
            serve(config, base, adapters, workdir / "published") as engine,
            Progress() as progress,
            progress.stage(f"rollouts of {source.name}", len(specs), len(specs) - len(missing)) as bar,
        ):
            recording.collect(
                missing,
                engine=engine,
                renderer=base.renderer,
                settings=settings,
                base=base.revision,
                on_episode=bar.episode,
            )
    _report(path, [recording.episodes[spec.id] for spec in specs])


def _manifests() -> Manifests:
    if ADAPTER.value is None:
        return []
    path = epath.Path(ADAPTER.value)
    return [(path, read_document(path, AdapterManifest))]


def _identity(config: ConfigDict, base: Base, source: Source, manifests: Manifests) -> dict[str, Any]:
    """What a work directory belongs to. Engine and concurrency may change, and tasks and trials become more."""
    return {
        "seed": config.seed,
        "base": {"revision": base.revision, "dtype": config.base.dtype},
        "adapter": [checksums(Path(path.parent / one.peft)).model_dump() for path, one in manifests],
        "environment": {"name": source.name, "design": None if source.design is None else source.design.model_dump()},
        "split": source.split,
        "rollout": {name: config.rollout[name] for name in _FIXED},
    }


def _report(path: PathLike, episodes: Sequence[Trajectory]) -> None:
    """Print what came of it. Raises UserError when not one episode could be graded."""
    rewards = [episode.reward for episode in episodes if episode.reward is not None]
    errors = [episode.error for episode in episodes if episode.error is not None]
    remedy = "mend that, and the same command plays them again"
    if not rewards:
        raise UserError(f"{path}: all {len(errors)} episodes broke, the first by {errors[0]}: {remedy}")
    passed, mean = sum(episode.passed for episode in episodes), sum(rewards) / len(rewards)
    print(f"{path}: {len(episodes)} episodes, {passed} passed, {len(errors)} broken, mean reward {mean:.3f}")
    if errors:
        print(f"the first broke by {errors[0]}: {remedy}")


if __name__ == "__main__":
    run(main)
