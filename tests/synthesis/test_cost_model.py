"""Claims: what a dry run predicts for the calendar is what its record took, and never less than a tokenizer would."""

from benchmarks.cost_model import calendar
from trace_jax.analysis.token_count import bounded_by_bytes


def test_the_prediction_bounds_the_record_and_is_near_it():
    stages = {stage.name: stage for stage in calendar(bounded_by_bytes()).stages}
    assert list(stages) == ["discover", "merge", "label", "synthesis"]
    for stage in stages.values():
        assert stage.requests == stage.predicted_requests > 0
        assert stage.bounded <= stage.predicted_prompts
        assert 0 < stage.answers <= stage.predicted_answers
    assert stages["discover"].bounded == stages["discover"].predicted_prompts
    label = stages["label"]
    assert label.predicted_prompts < 1.15 * label.bounded, "twelve capabilities are assumed, and six were found"
