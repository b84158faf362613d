"""What people say went wrong: the root causes that microsoft/AgentRx publishes for runs on τ-bench retail."""

from collections.abc import Mapping
from typing import Any

from etils import epath

from evaluation.judging.truth import Episodes, Truth
from trace_jax.analysis.importers import tau_bench
from trace_jax.contract.reading import read_json
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Trajectory
from trace_jax.errors import UserError

PEOPLE = "people"  # name of the source
RUNS, LABELS = "tau_retail.runs.json", "tau_retail.labels.json"
_DOMAIN, _AGENT = "retail", "unknown"

Cause = tuple[str, str]  # category, and the step's reason

# Root causes that are a lapse of the agent, with the skills that stand for them in our dictionaries. All others
# (Underspecified User Intent, Intent Not Supported, System Failure, …) are no lapse of the agent.
SKILLS: Mapping[str, tuple[str, ...]] = {
    "Misinterpretation of Tool Output": (
        "read_results_exactly",
        "compute_over_values",
        "compute_amounts",
        "choose_under_constraints",
        "verify_before_acting",
    ),
    "Intent Plan Misalignment": (
        "order_dependent_steps",
        "know_scope_of_actions",
        "complete_all_steps",
        "complete_all_requested_steps",
        "look_up_missing_information",
        "search_all_records",
    ),
    "Instruction Adherence Failure": (
        "confirm_before_writing",
        "confirm_details_before_writing",
        "ask_before_assuming",
        "ask_for_open_choices",
        "refuse_forbidden",
    ),
    "Invention of New Information": ("report_only_what_was_done", "state_only_known_facts"),
    "Invalid Invocation": ("recover_from_error",),
}


def people_truth(directory: PathLike) -> Truth:
    """The runs and labels in ``directory``. The seed is 0: nothing is drawn.

    Raises UserError for a directory without them, and for labels that fit no failed run.
    """
    place = epath.Path(directory)
    trajectories = tau_bench.load(place / RUNS, _DOMAIN, _AGENT)
    return truth_of(trajectories, root_causes(place / LABELS), str(place / LABELS))


def truth_of(trajectories: tuple[Trajectory, ...], causes: Mapping[str, Cause], where: str) -> Truth:
    """The root causes ``causes`` (by task) of ``trajectories``. ``where`` they are from is named in errors."""
    categories = {
        episode.id: causes[episode.task][0]
        for episode in trajectories
        if episode.task in causes and not episode.broken and not episode.passed
    }
    if not categories:
        raise UserError(f"{where}: none of {len(causes)} labels is of a failed run: give the labels of these runs")
    by_category: dict[str, Episodes] = {
        name: frozenset(key for key, category in categories.items() if category == name)
        for name in sorted(set(categories.values()))
    }
    return Truth(
        PEOPLE,
        0,
        trajectories,
        {name: ids for name, ids in by_category.items() if name in SKILLS},
        {name: ids for name, ids in by_category.items() if name not in SKILLS},
        frozenset(categories),
        categories,
    )


def root_causes(path: PathLike) -> dict[str, Cause]:
    """By task: category and reason of the root cause. Raises UserError for a file of another form."""
    try:
        return {str(label["trajectory_id"]): _root(label) for label in read_json(path, "give AgentRx's labels")}
    except (KeyError, TypeError, StopIteration) as error:
        raise UserError(f"{path}: no list of labels as AgentRx publishes them ({error!r}): give another file") from None


def _root(label: Mapping[str, Any]) -> Cause:
    wanted = label["root_cause"]["failure_id"]
    failure = next(failure for failure in label["failures"] if failure["failure_id"] == wanted)
    return failure["failure_category"], " ".join(failure["step_reason"].split())
