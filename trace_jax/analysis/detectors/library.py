"""The library: every detector by name."""

from trace_jax.analysis.detectors.assume import ASK_BEFORE_ASSUMING
from trace_jax.analysis.detectors.choose import CHOOSE_UNDER_CONSTRAINTS
from trace_jax.analysis.detectors.complete import COMPLETE_ALL_STEPS
from trace_jax.analysis.detectors.compute import COMPUTE_OVER_VALUES
from trace_jax.analysis.detectors.confirm import CONFIRM_BEFORE_WRITING
from trace_jax.analysis.detectors.distractors import DISTRACTORS
from trace_jax.analysis.detectors.finding import Detector
from trace_jax.analysis.detectors.lookup import LOOK_UP_MISSING_INFORMATION
from trace_jax.analysis.detectors.recover import RECOVER_FROM_ERROR
from trace_jax.analysis.detectors.refuse import REFUSE_FORBIDDEN
from trace_jax.analysis.detectors.report import REPORT_ONLY_WHAT_WAS_DONE
from trace_jax.analysis.detectors.verify import VERIFY_BEFORE_ACTING

CAPABILITIES: tuple[Detector, ...] = (
    VERIFY_BEFORE_ACTING,
    COMPLETE_ALL_STEPS,
    COMPUTE_OVER_VALUES,
    CHOOSE_UNDER_CONSTRAINTS,
    REFUSE_FORBIDDEN,
    RECOVER_FROM_ERROR,
    LOOK_UP_MISSING_INFORMATION,
    CONFIRM_BEFORE_WRITING,
    REPORT_ONLY_WHAT_WAS_DONE,
    ASK_BEFORE_ASSUMING,
)
DETECTORS: dict[str, Detector] = {detector.name: detector for detector in CAPABILITIES + DISTRACTORS}
