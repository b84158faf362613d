"""The rules designer: it takes the target's own practice and changes the difficulty, without a language model."""

from trace_jax.contract.environment import Attempt, Design
from trace_jax.synthesis.designer import Brief, DesignError


class RulesDesigner:
    """Picks from the target's practice. The same attempts always give the same design."""

    name = "rules"

    def design(self, brief: Brief, attempts: tuple[Attempt, ...]) -> Design:
        """The practice's first design, or one step easier or harder than the last attempt.

        Raises DesignError if the target brings no practice for the capability, if the last attempt failed for another
        reason than its difficulty, and if the next step leaves the ladder of designs or was tried before.
        """
        if brief.practice is None:
            raise DesignError(
                f"target {brief.own.entry_point!r} brings no practice for capability {brief.capability.name!r}: "
                f"{brief.without}"
            )
        if not attempts:
            return brief.practice.first
        designs, last = brief.practice.designs, attempts[-1]
        if last.verdict not in ("too easy", "too hard"):
            raise DesignError(f"no difficulty mends this: {last.feedback}")
        index = designs.index(last.design)
        following = index + (1 if last.verdict == "too easy" else -1)
        if not 0 <= following < len(designs):
            end = "hardest" if last.verdict == "too easy" else "easiest"
            raise DesignError(f"{end} difficulty reached, still {last.feedback}")
        if any(attempt.design == designs[following] for attempt in attempts):
            between = f"{min(index, following)} and {max(index, following)}"
            raise DesignError(f"no difficulty between {between}: {last.feedback}")
        return designs[following]
