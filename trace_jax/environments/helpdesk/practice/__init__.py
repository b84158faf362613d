"""Generated environments for each capability of the helpdesk, in the shapes of the target."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "choose_under_constraints": ["ChooseUnderConstraints"],
        "complete_all_steps": ["CompleteAllSteps"],
        "compute_over_values": ["ComputeOverValues"],
        "desk": ["PracticeDesk"],
        "families": ["FAMILIES"],
        "ladder": ["FamilyPractice", "practice_on"],
        "recover_from_error": ["RecoverFromError"],
        "refuse_forbidden": ["RefuseForbidden"],
        "verify_before_acting": ["VerifyBeforeActing"],
    },
)
