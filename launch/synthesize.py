"""Makes environments for the capabilities that an analysis has selected, and calibrates them with the base.

    python -m launch.synthesize --config=configs/X.py --analysis=ANALYSIS --rollouts=FILE --workdir=DIR

ANALYSIS is the work directory of launch.analyze, or analysis/ of a pipeline's. FILE holds the trajectories that were
analysed, from which the designer learns what failed; those of another format are read as launch.analyze reads them, by
--config.source.path=FILE. Each capability gets a manifest DIR/environments/NAME.json, or it
is FAILED with a reason. launch.train trains adapters on these manifests, and launch.route routes to them.

The designer is that of synthesis.designer: the target's own practice, or a language model (section llm), whose modules
run in the sandbox alone. After an interruption the same command continues. A capability whose episodes broke since a
server was away is tried again by the next start. --dry_run checks inputs, endpoint and budget, and spends nothing.
"""

import asyncio
from collections.abc import Sequence

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from launch.inputs import local, read_evidence, read_selected
from trace_jax.analysis.compact import compact
from trace_jax.analysis.stage import CALLS as ANALYSIS_CALLS
from trace_jax.analysis.stage import SELECTED
from trace_jax.analysis.token_count import bounded_by_bytes
from trace_jax.contract.capability import SelectedCapability, Status
from trace_jax.contract.digest import checksum
from trace_jax.contract.environment import EnvironmentManifest
from trace_jax.contract.files import write_document
from trace_jax.contract.trajectory import Trajectory
from trace_jax.contract.workdir import open_workdir
from trace_jax.environments.checks.quick import require_sound
from trace_jax.environments.hosts.opened import open_target
from trace_jax.errors import UserError
from trace_jax.llm.check import check_model
from trace_jax.llm.model import LanguageModel
from trace_jax.program import run
from trace_jax.run_settings import RunSettings, read_settings
from trace_jax.sandbox.sandbox import shared_sandbox
from trace_jax.synthesis.designer import make_brief
from trace_jax.synthesis.designers import CALLS, LLM, make_designer
from trace_jax.synthesis.kinds import Evidence
from trace_jax.synthesis.llm.estimate import estimate

ENVIRONMENTS, CAPABILITIES = "environments", "capabilities"


def main(config: ConfigDict, workdir: epath.Path) -> None:
    """Make every environment that is not made yet, and print what became of each capability."""
    settings, root = read_settings(config), local(workdir)
    selected, episodes = read_selected(ANALYSIS.value), _episodes(settings)
    from trace_jax.pipeline.environments import EnvironmentMaker, check_postponed  # JAX, which a dry run does not need
    from trace_jax.pipeline.outcomes import outcome_table
    from trace_jax.session import load_base, open_session
    from trace_jax.telemetry.progress import Progress

    directory = root / ENVIRONMENTS
    designer = make_designer(
        settings.synthesis,
        llm=settings.llm,
        record=directory / CALLS,
        seed=settings.seed,
        earlier=[epath.Path(ANALYSIS.value) / ANALYSIS_CALLS],
    )
    target = open_target(settings.target)
    require_sound(target, settings.target.environment)
    base = load_base(settings)
    open_workdir(workdir, _identity(settings, base.revision))
    session = open_session(settings, base)
    with Progress() as progress:
        maker = EnvironmentMaker(session, target, designer, directory, progress, lambda: episodes)
        made = []
        for capability in selected:
            made.append(maker.make(capability))
            _keep_status(capability, made[-1], workdir)
    print(outcome_table(selected, made, directory / CALLS))
    check_postponed(made)
    if not any(isinstance(each, EnvironmentManifest) for each in made):
        raise UserError(f"{workdir}: no capability has an environment: see the reasons above")


def check(config: ConfigDict, workdir: epath.Path | None) -> None:
    """Everything that can be checked without spending: settings, analysis, episodes, endpoint and budget."""
    settings = read_settings(config)
    selected, episodes = read_selected(ANALYSIS.value), _episodes(settings)
    record = None if workdir is None else workdir / ENVIRONMENTS / CALLS
    make_designer(settings.synthesis, llm=settings.llm, record=record, seed=settings.seed)
    names = ", ".join(each.capability.name for each in selected)
    print(f"\n{len(selected)} capabilities ({names}); {len(episodes)} episodes to learn from")
    target = open_target(settings.target)
    designs = len(selected) * settings.synthesis.candidates * settings.synthesis.max_rounds
    group = settings.synthesis.calibration_groups * settings.synthesis.calibration_group_size
    print(f"at most {designs} designs, and {designs * group} rollouts to calibrate them")
    if settings.synthesis.designer == LLM:
        print(shared_sandbox(settings.sandbox).describe())
        print(asyncio.run(check_model(LanguageModel(settings.llm), record, replay=settings.llm.replay)))
        evidence = [Evidence(episodes, frozenset(each.failed_examples)) for each in selected]
        briefs = [
            make_brief(each.capability, settings.target.design, target, found, compact)
            for each, found in zip(selected, evidence, strict=True)
        ]
        print(f"\n{estimate(briefs, settings.synthesis, settings.llm, bounded_by_bytes())}")


def _keep_status(selected: SelectedCapability, made: object, workdir: epath.Path) -> None:
    path = workdir / CAPABILITIES / f"{selected.capability.name}.json"
    if isinstance(made, SelectedCapability):
        write_document(path, made)
    elif isinstance(made, EnvironmentManifest):
        write_document(path, selected.replace(status=Status.VALIDATED))


def _episodes(settings: RunSettings) -> Sequence[Trajectory]:
    return read_evidence(ANALYSIS.value, ROLLOUTS.value, settings.source)


def _identity(settings: RunSettings, revision: str) -> dict[str, object]:
    """What the work directory belongs to."""
    selected = checksum(epath.Path(ANALYSIS.value) / SELECTED).sha256
    return {**settings.identity(), "base_revision": revision, "analysis": selected}


if __name__ == "__main__":
    ANALYSIS = flags.DEFINE_string("analysis", None, "directory of the analysis", required=True)
    ROLLOUTS = flags.DEFINE_string("rollouts", None, "JSON Lines of the trajectories that were analysed")
    run(main, prompts=["trace_jax.synthesis.llm"], dry_run=check)
