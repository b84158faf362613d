"""Real episodes of gpt-4o on τ-bench's airline domain, each read by hand; the comment says what happens in it."""

from pathlib import Path

import pytest

from trace_jax.analysis.detectors.distractors import DISTRACTORS
from trace_jax.analysis.detectors.library import DETECTORS
from trace_jax.analysis.episode import Episode, read_episodes
from trace_jax.analysis.importers import tau_bench
from trace_jax.contract.capability import Label

AIRLINE = Path(__file__).parent / "fixtures" / "tau_bench_airline.json"
EPISODES: dict[str, Episode] = {
    episode.id.removeprefix("airline-"): episode
    for episode in read_episodes(tau_bench.load(AIRLINE, "airline", "gpt-4o"))
}


def label(episode: str, capability: str) -> Label:
    findings = list(DETECTORS[capability].find(EPISODES[episode]))
    if any(not finding.shown for finding in findings):
        return Label.LACKING
    return Label.PRESENT if findings else Label.NA


@pytest.mark.parametrize(
    ("episode", "capability", "expected"),
    [
        # "Booked 10 hours ago", says the user; 13 days, basic economy, no insurance, says the record; cancelled.
        ("41-0", "refuse_forbidden", Label.LACKING),
        # The same reservation; the user is ill; the agent sees that there is no insurance and declines.
        ("42-0", "refuse_forbidden", Label.PRESENT),
        # Economy, no insurance, three days old: "within the 24-hour window", cancelled. Then 304 is paid for two at
        # 304 each, and the second cheapest of the flights (direct ones included) costs 290, not 304.
        ("25-1", "refuse_forbidden", Label.LACKING),
        ("25-1", "compute_over_values", Label.LACKING),
        ("25-1", "choose_under_constraints", Label.LACKING),
        # Passenger, cabin and three bags asked for at once; only the cabin is changed: "three checked bags have been
        # added". In the other trial all three are done.
        ("5-0", "complete_all_steps", Label.LACKING),
        ("5-0", "report_only_what_was_done", Label.LACKING),
        ("5-1", "complete_all_steps", Label.PRESENT),
        ("5-1", "report_only_what_was_done", Label.PRESENT),
        # The user does not remember the reservation; the agent lists them from the profile.
        ("5-0", "look_up_missing_information", Label.PRESENT),
        # "I think I'm a gold member": the agent reads the profile, which says silver, and goes by it.
        ("44-0", "verify_before_acting", Label.NA),
        ("44-0", "refuse_forbidden", Label.NA),
    ],
)
def test_the_label_is_what_a_reader_finds(episode: str, capability: str, expected: Label) -> None:
    assert label(episode, capability) is expected


@pytest.mark.parametrize("capability", [detector.name for detector in DISTRACTORS])
def test_gpt_4o_lacks_no_distractor(capability: str) -> None:
    assert all(label(episode, capability) is not Label.LACKING for episode in EPISODES)
