"""The rules designer picks the generator of the capability's family and turns its difficulty; no language model."""

from trace_jax.contract.environment import Attempt, Design
from trace_jax.environments.helpdesk.practice import FAMILIES
from trace_jax.environments.helpdesk.practice.desk import Knobs, PracticeDesk
from trace_jax.errors import UserError
from trace_jax.synthesis.calibration import TOO_EASY, TOO_HARD
from trace_jax.synthesis.designer import Brief, Designer, DesignError

# From easy to hard. Tickets that are wholly routine ease an environment, and keep the routine alive.
_EASED: tuple[Knobs, ...] = (
    {"exercised": 1, "routine": 0, "contrast_every": 5},
    {"exercised": 1, "routine": 0, "contrast_every": 8},
)
_USUAL: tuple[Knobs, ...] = (
    {"exercised": 1, "routine": 1, "contrast_every": 8},
    {"exercised": 1, "routine": 1, "contrast_every": 0},
    {"exercised": 2, "routine": 0, "contrast_every": 0},
)


def ladder(family: type[PracticeDesk]) -> tuple[Design, ...]:
    """All designs of a family, easiest first; the family's own knobs are turned at the two ends."""
    rungs = [knobs | family.easier for knobs in _EASED]
    if family.easier:
        rungs.append(_EASED[-1])
    rungs += _USUAL
    if family.harder:
        rungs.append(_USUAL[-1] | family.harder)
    return tuple(_design(family, knobs) for knobs in rungs)


def first_design(family: type[PracticeDesk]) -> Design:
    """The rung that is tried first."""
    return _design(family, _USUAL[0])


def _design(family: type[PracticeDesk], knobs: Knobs) -> Design:
    return Design(entry_point=f"{family.__module__}:{family.__name__}", parameters=knobs)


class RulesDesigner:
    """Designs for the helpdesk's tools only; the same attempts always give the same design."""

    name = "rules"

    def design(self, brief: Brief, attempts: tuple[Attempt, ...]) -> Design:
        """The generator at its starting difficulty, or one step easier or harder than the last attempt.

        Raises DesignError for an unknown capability, for another target's tools, for a failed gate (no difficulty mends
        that), and when the next step leaves the ladder or was tried before.
        """
        name = brief.capability.name
        family = FAMILIES.get(name)
        if family is None:
            raise DesignError(
                f"the rules designer has no generator for capability {name!r}: it has {', '.join(FAMILIES)}"
            )
        absent = sorted(set(family.offered) - {tool.name for tool in brief.tools})
        if absent:
            raise DesignError(f"the rules designer cannot serve target {brief.target!r}: it has no tool {absent[0]!r}")
        designs = ladder(family)
        if not attempts:
            return first_design(family)
        feedback = attempts[-1].feedback
        if not feedback.startswith((TOO_EASY, TOO_HARD)):
            raise DesignError(f"no difficulty mends this: {feedback}")
        last = designs.index(attempts[-1].design)
        following = last + (1 if feedback.startswith(TOO_EASY) else -1)
        if not 0 <= following < len(designs):
            raise DesignError(f"{'hardest' if last else 'easiest'} difficulty reached, still {feedback}")
        if any(attempt.design == designs[following] for attempt in attempts):
            raise DesignError(f"no difficulty between {min(last, following)} and {max(last, following)}: {feedback}")
        return designs[following]


def make_designer(name: str) -> Designer:
    """The designer called ``name``. Raises UserError for one that this build does not have."""
    if name == "llm":
        raise UserError("designer 'llm': not in this build, which has no language model client; use 'rules'")
    if name != RulesDesigner.name:
        raise UserError(f"designer {name!r}: unknown; use 'rules'")
    return RulesDesigner()
