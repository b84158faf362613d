"""One parametric generator for each capability, each a small desk in the shapes of the helpdesk target."""

from trace_jax.environments.helpdesk.practice.choose_under_constraints import ChooseUnderConstraints
from trace_jax.environments.helpdesk.practice.complete_all_steps import CompleteAllSteps
from trace_jax.environments.helpdesk.practice.compute_over_values import ComputeOverValues
from trace_jax.environments.helpdesk.practice.desk import PracticeDesk
from trace_jax.environments.helpdesk.practice.recover_from_error import RecoverFromError
from trace_jax.environments.helpdesk.practice.refuse_forbidden import RefuseForbidden
from trace_jax.environments.helpdesk.practice.verify_before_acting import VerifyBeforeActing

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
