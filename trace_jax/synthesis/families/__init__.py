"""One parametric generator per family of capabilities, each a small desk in the shapes of the helpdesk target."""

from trace_jax.synthesis.families.choose_under_constraints import ChooseUnderConstraints
from trace_jax.synthesis.families.complete_all_steps import CompleteAllSteps
from trace_jax.synthesis.families.compute_over_values import ComputeOverValues
from trace_jax.synthesis.families.practice import PracticeDesk
from trace_jax.synthesis.families.recover_from_error import RecoverFromError
from trace_jax.synthesis.families.refuse_forbidden import RefuseForbidden
from trace_jax.synthesis.families.verify_before_acting import VerifyBeforeActing

FAMILIES: dict[str, type[PracticeDesk]] = {
    family.capability: family
    for family in (
        VerifyBeforeActing,
        CompleteAllSteps,
        ComputeOverValues,
        ChooseUnderConstraints,
        RefuseForbidden,
        RecoverFromError,
    )
}
