"""Collects trajectories: an agent plays an environment, and each episode is written to DIR/trajectories.jsonl.

    python -m launch.rollout --config=configs/quickstart.py --workdir=DIR
    python -m launch.rollout --config=configs/quickstart.py --workdir=DIR --split=held_out \
        --environment=RUN/environments/NAME.json --adapter=RUN/adapters/NAME/adapter.json

    python -m launch.rollout --config=configs/endpoint.py --workdir=DIR \
        --config.engine.url=https://HOST/v1 --config.engine.model=NAME

The program plays ``rollout.trials`` episodes on each of the first ``target.train_tasks`` tasks, or with
``--split=held_out`` of the first ``target.held_out_tasks`` held-out tasks. After an interruption the same command
continues. With more tasks or trials it plays the missing episodes. The next start plays broken episodes again. With
engine.kind chat an OpenAI-compatible endpoint plays, and no base is loaded. Episodes of the base or of an endpoint on
training tasks can be analysed; those of an endpoint have no tokens, so they cannot be trained on:

    python -m launch.analyze --config=configs/quickstart.py --config.source.path=DIR/trajectories.jsonl --workdir=OUT
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
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
from trace_jax.engines.chat import ChatEngine
from trace_jax.environments.source import Source, load_source
from trace_jax.errors import UserError
from trace_jax.program import run
from trace_jax.relay.files import checksums
from trace_jax.rollout.plan import plan_episodes
from trace_jax.rollout.recording import Recording
from trace_jax.run_settings import RunSettings, read_settings
from trace_jax.sandbox.designs import host_of_design
from trace_jax.session import (
    EndpointSession,
    Manifests,
    Session,
    load_adapters,
    load_base,
    open_endpoint,
    serve,
)
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
    """Play the episodes that are not recorded yet, or that broke."""
    split = cast(Split, SPLIT.value)
    settings = read_settings(config)
    target = settings.target
    source = load_source(
        ENVIRONMENT.value or target.environment,
        split,
        target.tasks(split),
        target,
        host_of_design=lambda design, own: host_of_design(design, own, settings.sandbox),
    )
    manifests = _manifests()
    opened, revision, adapter = _session(settings, manifests, workdir)
    open_workdir(workdir, _identity(settings, revision, source, manifests))
    specs = plan_episodes(source, settings.rollout, seed=settings.seed, adapter=adapter)
    path = workdir / TRAJECTORIES
    recording = Recording(path)
    if missing := recording.missing(specs):
        with (
            opened as session,
            Progress() as progress,
            progress.stage(f"rollouts of {source.name}", len(specs), len(specs) - len(missing)) as bar,
        ):
            session.play(missing, recording, bar.episode)
        if isinstance(session, EndpointSession):
            print(_spending(session.engine))
    _report(path, [recording.episodes[spec.id] for spec in specs])


def _session(
    settings: RunSettings, manifests: Manifests, workdir: epath.Path
) -> tuple[AbstractContextManager[Session | EndpointSession], str, str | None]:
    """What plays, not yet opened; the revision of its base; the adapter that plays."""
    if settings.engine.kind == "chat":
        if manifests:
            raise UserError("--adapter with engine.kind chat: an endpoint takes none: serve it, and name its model")
        endpoint = open_endpoint(settings)
        return nullcontext(endpoint), endpoint.revision, None
    base = load_base(settings)
    adapters = load_adapters(manifests, base)
    return serve(settings, base, adapters, workdir / "published"), base.revision, next(iter(adapters), None)


def _spending(engine: ChatEngine) -> str:
    """One line about what the endpoint was sent."""
    spent, dollars = engine.spending, engine.dollars
    tokens = f"{spent.prompt_tokens} + {spent.completion_tokens} tokens"
    unknown = f", {spent.unknown} answers of unknown size" if spent.unknown else ""
    cost = "cost unknown: set engine.prompt_price and engine.completion_price" if dollars is None else f"${dollars:.4f}"
    counts = f"{spent.answers} answers, {spent.retries} retries, {spent.failures} given up"
    return f"{engine.name}: {counts}, {tokens}{unknown}; {cost}"


def _manifests() -> Manifests:
    if ADAPTER.value is None:
        return []
    path = epath.Path(ADAPTER.value)
    return [(path, read_document(path, AdapterManifest))]


def _identity(settings: RunSettings, revision: str, source: Source, manifests: Manifests) -> dict[str, Any]:
    """The identity of a work directory. Engine and concurrency are not part of it; tasks and trials may increase."""
    return {
        "seed": settings.seed,
        "base": {"revision": revision, "dtype": settings.base.dtype},
        "adapter": [checksums(Path(path.parent / manifest.peft)).model_dump() for path, manifest in manifests],
        "environment": {
            "name": source.name,
            "design": None if source.design is None else source.design.model_dump(),
            "parameters": settings.target.parameters,
        },
        "split": source.split,
        "rollout": {name: getattr(settings.rollout, name) for name in _FIXED},
    }


def _report(path: PathLike, episodes: Sequence[Trajectory]) -> None:
    """Print a summary. Raises UserError if no episode could be graded."""
    rewards = [episode.reward for episode in episodes if episode.reward is not None]
    errors = [episode.error for episode in episodes if episode.error is not None]
    remedy = "fix the cause, and the same command plays them again"
    if not rewards:
        raise UserError(f"{path}: all {len(errors)} episodes broke, the first with {errors[0]}: {remedy}")
    passed, mean = sum(episode.passed for episode in episodes), sum(rewards) / len(rewards)
    print(f"{path}: {len(episodes)} episodes, {passed} passed, {len(errors)} broken, mean reward {mean:.3f}")
    if errors:
        print(f"the first error is {errors[0]}: {remedy}")


if __name__ == "__main__":
    run(main)
