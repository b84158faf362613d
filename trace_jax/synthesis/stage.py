"""Stage 2, for one capability: a selected capability becomes an environment manifest, or FAILED with a reason."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etils import epath

from trace_jax.contract.capability import SelectedCapability, Status
from trace_jax.contract.digest import log_checksum
from trace_jax.contract.environment import Attempt, Design, DesignAttempt, EnvironmentManifest, attempts_path
from trace_jax.contract.files import JsonLinesWriter, read_document, write_document
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.environments.protocol import Target
from trace_jax.errors import UserError
from trace_jax.llm.errors import EndpointRefused, LLMError
from trace_jax.sandbox.sandbox import shared_sandbox
from trace_jax.sandbox.settings import SandboxSettings
from trace_jax.synthesis.calibration import Window
from trace_jax.synthesis.designer import Brief, Designer, DesignError, NoDesign, ParallelDesigner, make_brief
from trace_jax.synthesis.disjoint import conversations
from trace_jax.synthesis.examples import Page
from trace_jax.synthesis.kinds import Evidence
from trace_jax.synthesis.prompt_gates import NO_PROMPTS
from trace_jax.synthesis.settings import SynthesisSettings
from trace_jax.synthesis.trials import Rollout, ServerAway, Trials, best_of

log = logging.getLogger(__name__)

ACCEPTED = Window()
Proposal = Design | DesignError | NoDesign


@dataclass(frozen=True)
class Postponed:
    """A capability whose designs could not be tried, since a server was away. No file says so: the next start tries
    again, and asks no model and plays no episode twice.

    ``rollouts`` were played for it so far.
    """

    selected: SelectedCapability
    reason: str
    rollouts: int


def synthesise(
    selected: SelectedCapability,
    *,
    designer: Designer,
    target: Target,
    own: Design,
    rollout: Rollout,
    settings: SynthesisSettings,
    seed: int,
    directory: PathLike,
    evidence: Sequence[Trajectory] = (),
    page: Page | None = None,
    recorded: PathLike | None = None,
    window: Window = ACCEPTED,
    sandbox: SandboxSettings | None = None,
) -> EnvironmentManifest | SelectedCapability | Postponed:
    """A validated and calibrated environment for ``selected``, or the capability as FAILED with the reason.

    The outcome is written to ``directory``. A second call reads it from there, and spends no rollouts. A design that
    fails goes back to the designer, until that gives up; an error of ``rollout`` is raised. All candidates have the
    same rounds; the first round with accepted designs is the last one, and the best calibrated of these is kept.

    Args:
        own: how ``target`` is built: its name in the registry, and its parameters.
        seed: of the run; every round takes new seeds of the environment from it.
        evidence: the episodes of the analysis, which tell the kinds of requests that the base fails at.
        page: makes pages of episodes, for a designer that reads.
        recorded: the JSON Lines in which ``rollout`` keeps its episodes; the manifest holds their digest.
        window: the accepted range of the calibration.
        sandbox: where designs with a source run. Raises UserError if this machine has none, and ``designer`` needs it.
    """
    check_candidates(designer, settings)
    name = selected.capability.name
    written = epath.Path(directory) / f"{name}.json"
    failed = epath.Path(directory) / f"{name}.failed.json"
    if written.exists():
        return _same(read_document(written, EnvironmentManifest), name, own.entry_point, written)
    if failed.exists():
        return read_document(failed, SelectedCapability)

    sandbox = sandbox or SandboxSettings()
    if isinstance(designer, ParallelDesigner):
        shared_sandbox(sandbox)  # raises where this machine has none, before a model is paid
    brief = make_brief(selected.capability, own, target, Evidence(evidence, frozenset(selected.failed_examples)), page)
    trials = Trials(
        brief=brief,
        tasks=conversations(target, evidence),
        rollout=rollout,
        settings=settings,
        seed=seed,
        window=window,
        page=page,
        sandbox=sandbox,
    )
    attempts: list[Attempt] = []
    try:
        best = _accepted(designer, trials, attempts)
        assert best.design is not None
        manifest = EnvironmentManifest(
            name=name,
            capability=name,
            target=own.entry_point,
            designer=designer.name,
            design=best.design,
            gates=best.gates,
            calibration=best.calibration,
            attempts=tuple(attempts),
            rollouts=rollouts_spent(attempts),
            recorded=None if recorded is None else log_checksum(recorded),
            written_by=designer.authorship(name, best.design) if isinstance(designer, ParallelDesigner) else None,
        )
        write_document(written, manifest)
        if any(check.detail == NO_PROMPTS for check in best.gates):
            log.warning("environment %s: %s", name, NO_PROMPTS)
        return manifest
    except DesignError as error:
        spent, rounds = rollouts_spent(attempts), len({attempt.round for attempt in attempts})
        tried = f"{rounds} rounds, " + (f"{len(attempts)} designs, " if settings.candidates > 1 else "")
        reason = f"{error} ({tried}{spent} rollouts)"
        lost = selected.replace(status=Status.FAILED, reason=reason, rollouts=spent)
        _keep_attempts(attempts_path(directory, name), name, attempts)
        write_document(failed, lost)
        log.warning("capability %s FAILED: %s", name, reason)
        return lost
    except EndpointRefused:
        raise  # no capability gets further
    except (LLMError, ServerAway) as error:
        log.warning("capability %s waits for the next start: %s", name, error)
        return Postponed(selected, str(error), rollouts_spent(attempts))


def check_candidates(designer: Designer, settings: SynthesisSettings) -> None:
    """Raise UserError if ``designer`` works on one design at a time, and the settings want several."""
    if settings.candidates > 1 and not isinstance(designer, ParallelDesigner):
        raise UserError(
            f"synthesis.candidates is {settings.candidates}: designer {designer.name!r} makes one design at a time: "
            "set it to 1, or synthesis.designer to llm"
        )


def rollouts_spent(attempts: Sequence[Attempt]) -> int:
    """Rollouts that the calibrations of ``attempts`` took, broken ones included."""
    return sum(
        a.calibration.groups * a.calibration.group_size + a.differential_rollouts
        for a in attempts
        if a.calibration is not None
    )


def _accepted(designer: Designer, trials: Trials, attempts: list[Attempt]) -> Attempt:
    """The best accepted attempt of the first round that has one. All attempts are added to ``attempts``.

    Raises DesignError if every candidate was given up, or after the last round.
    """
    settings, brief = trials.settings, trials.brief
    chains: dict[int, tuple[Attempt, ...]] = {candidate: () for candidate in range(settings.candidates)}
    given_up: DesignError | None = None
    for number in range(settings.max_rounds):
        for candidate, proposal in _proposals(designer, brief, chains).items():
            if isinstance(proposal, DesignError):
                given_up = proposal
                del chains[candidate]
                continue
            if isinstance(proposal, NoDesign):
                attempt = _without_design(proposal, number, candidate)
            else:
                attempt = trials.attempt(proposal, number, candidate)
            chains[candidate] += (attempt,)
            attempts.append(attempt)
            log.info("%s, round %d, candidate %d: %s", brief.capability.name, number, candidate, attempt.feedback)
        accepted = [attempt for attempt in attempts if attempt.verdict == "accepted"]
        if accepted:
            return best_of(accepted, trials.window)
        if not chains:
            assert given_up is not None
            raise given_up
    raise DesignError(f"no environment accepted in {settings.max_rounds} rounds; the last was {attempts[-1].feedback}")


def _proposals(designer: Designer, brief: Brief, chains: Mapping[int, tuple[Attempt, ...]]) -> dict[int, Proposal]:
    if isinstance(designer, ParallelDesigner):
        return designer.design_each(brief, chains)
    proposals: dict[int, Proposal] = {}
    for candidate, attempts in chains.items():
        try:
            proposals[candidate] = designer.design(brief, attempts)
        except (DesignError, NoDesign) as error:
            proposals[candidate] = error
    return proposals


def _keep_attempts(path: epath.Path, capability: str, attempts: Sequence[Attempt]) -> None:
    path.unlink(missing_ok=True)  # of a start that was killed here
    if attempts:
        with JsonLinesWriter(path) as writer:
            writer.extend(DesignAttempt(capability=capability, attempt=attempt) for attempt in attempts)


def _without_design(fault: NoDesign, number: int, candidate: int) -> Attempt:
    return Attempt(
        round=number,
        candidate=candidate,
        design=None,
        gates=(),
        calibration=None,
        verdict="no design",
        feedback=str(fault),
    )


def _same(manifest: EnvironmentManifest, name: str, target: str, path: epath.Path) -> EnvironmentManifest:
    if (manifest.capability, manifest.target) != (name, target):
        raise UserError(
            f"{path}: made for {manifest.capability} on {manifest.target}, wanted {name} on {target}: remove the file, "
            "or choose a new work directory"
        )
    return manifest
