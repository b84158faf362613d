import numpy as np
import pytest
from desk_rollouts import demonstrator_episodes, shuffled, with_rewards

from trace_jax.analysis.agreement import krippendorff_alpha
from trace_jax.analysis.analyst import make_analyst
from trace_jax.analysis.apart import goes_with
from trace_jax.analysis.detectors.distractors import DISTRACTORS
from trace_jax.analysis.discovery import tabulate
from trace_jax.analysis.episode import read_episodes
from trace_jax.analysis.partition import code_table, partition_fault
from trace_jax.analysis.patterns.library import find_patterns
from trace_jax.analysis.patterns.names import is_check, is_pattern
from trace_jax.contract.capability import Candidate
from trace_jax.contract.trajectory import Check, Message, Policy, ToolCall, Trajectory
from trace_jax.errors import UserError

EPISODES = demonstrator_episodes(trials=2, seed=11)


def test_labels_are_a_function_of_seed_and_run() -> None:
    analyst, other = make_analyst("rules"), make_analyst("rules")
    candidates = analyst.discover(EPISODES)
    assert candidates == other.discover(EPISODES)
    first = analyst.label(EPISODES, candidates, 0, 5)
    assert first == other.label(EPISODES, candidates, 0, 5)
    assert first != analyst.label(EPISODES, candidates, 1, 5).replace(run=0)
    assert first != analyst.label(EPISODES, candidates, 0, 6).replace(seed=5)


def test_every_run_is_a_clean_partition_of_whole_tasks_and_runs_agree_but_not_fully() -> None:
    analyst = make_analyst("rules")
    candidates = analyst.discover(EPISODES)
    runs = [analyst.label(EPISODES, candidates, number, 0) for number in range(6)]
    ids = [episode.id for episode in EPISODES]
    task = {episode.id: episode.task for episode in EPISODES}
    for run in runs:
        assert partition_fault(run, candidates, set(ids)) is None
        seen = {task[identifier] for identifier in run.trajectories}
        assert sorted(run.trajectories) == sorted(identifier for identifier in ids if task[identifier] in seen)
        assert len(seen) == round(0.8 * len(set(task.values())))
    alpha = krippendorff_alpha(code_table(runs, candidates, ids)[:, :, 0])
    assert alpha is not None and 0.7 < alpha < 1.0


def test_labels_do_not_depend_on_outcomes() -> None:
    candidates = make_analyst("rules").discover(EPISODES)
    flipped = with_rewards(EPISODES, [1.0 - (episode.reward or 0.0) for episode in EPISODES])
    for trajectories in (flipped, shuffled(EPISODES, 1)):
        mixed = make_analyst("rules").label(trajectories, candidates, 0, 0)
        assert mixed == make_analyst("rules").label(EPISODES, candidates, 0, 0)


def test_the_dictionary_holds_the_distractors_and_at_most_ten_candidates() -> None:
    candidates = make_analyst("rules").discover(EPISODES)
    assert len(candidates.distractors) >= 4
    assert {candidate.name for candidate in candidates.distractors} == {detector.name for detector in DISTRACTORS}
    assert 0 < len(candidates.capabilities) <= 10
    failed = {episode.id for episode in EPISODES if not episode.passed}
    for candidate in candidates.capabilities:
        assert 1 <= len(candidate.examples) <= 4 and set(candidate.examples) <= failed


def test_an_unknown_candidate_or_analyst_is_refused_by_name() -> None:
    analyst = make_analyst("rules")
    candidates = analyst.discover(EPISODES)
    strange = candidates.replace(capabilities=(Candidate(name="telepathy", description="?"),))
    with pytest.raises(UserError, match="telepathy"):
        analyst.label(EPISODES, strange, 0, 0)
    with pytest.raises(UserError, match="analysis.analyst is llm, and there is no endpoint"):
        make_analyst("llm")
    with pytest.raises(UserError, match="no analyst 'gpt': known are llm, rules"):
        make_analyst("gpt")


def calls(number: int, names: list[tuple[str, bool]], reward: float, checks: tuple[Check, ...] = ()) -> Trajectory:
    """An episode that makes the named calls; True marks one that fails."""
    messages = [Message(role="user", content="Do it.")]
    for index, (name, fails) in enumerate(names):
        messages.append(Message(role="assistant", tool_calls=(ToolCall(id=str(index), name=name, arguments={}),)))
        messages.append(Message(role="tool", tool_call_id=str(index), content='{"error":"no"}' if fails else "{}"))
    return Trajectory(
        id=f"c{number}",
        target="t",
        task=str(number),
        split="train",
        seed=0,
        trial=0,
        policy=Policy(base="b"),
        messages=(*messages, Message(role="assistant", content="Done.")),
        reward=reward,
        checks=checks,
        termination="done",
    )


def planted(seed: int) -> tuple[Trajectory, ...]:
    """Episodes fail, nine in ten, where ship was called before weigh; and every failed one fails the check "state"."""
    rng = np.random.default_rng(seed)
    episodes = []
    for number in range(80):
        order = ["weigh", "ship"] if rng.random() < 0.5 else ["ship", "weigh"]
        failed = rng.random() < (0.9 if order[0] == "ship" else 0.1)
        noise = [("get_label", bool(rng.random() < 0.3)), ("list_boxes", False)]
        checks = (Check(name="state", passed=not failed), Check(name="style", passed=bool(rng.random() < 0.5)))
        episodes.append(calls(number, [*noise, *((name, False) for name in order)], 0.0 if failed else 1.0, checks))
    return tuple(episodes)


def mined(episodes: tuple[Trajectory, ...]) -> list[str]:
    tables = find_patterns(read_episodes(episodes), [episode.checks for episode in episodes])
    names = sorted({name for table in tables for name in table if is_pattern(name) and not is_check(name)})
    failed = np.array([not episode.passed for episode in episodes])
    patterns = tabulate(tables, names, failed)
    return list(goes_with(patterns, np.zeros_like(failed), [episode.task for episode in episodes]))


def test_mining_finds_the_planted_order_and_not_the_check_that_is_the_reward() -> None:
    for seed in range(3):
        names = mined(planted(seed))
        assert "call_weigh_before_ship" in names
        assert not any("state" in name or "style" in name or "label" in name for name in names)


def test_mining_finds_nothing_in_shuffled_outcomes() -> None:
    assert [mined(shuffled(planted(0), seed)) for seed in range(10)] == [[]] * 10


def test_mined_candidates_are_labelled_by_their_name() -> None:
    episodes = planted(1)
    analyst = make_analyst("rules")
    candidates = analyst.discover(episodes)
    assert "call_weigh_before_ship" in {candidate.name for candidate in candidates.capabilities}
    run = analyst.label(episodes, candidates, 0, 0)
    assert partition_fault(run, candidates, {episode.id for episode in episodes}) is None
