"""The targets with planted faults, and habits that cost nothing."""

from evaluation.judging.truth import Truth, failed_episodes
from evaluation.planted.grading import Style, with_checks
from evaluation.planted.play import DISTRACTORS, Planted, play

EPISODES = 120
STYLE: Style = "coarse"  # a grader that has one check for the state and one for the replies


def planted_truth(target: Planted, seed: int, episodes: int = EPISODES) -> Truth:
    """``episodes`` of the scripted agent on ``target``, graded coarsely."""
    played = play(target, seed, episodes)
    failed = [each for each in played if not each.trajectory.passed]

    def having(cause: str) -> frozenset[str]:
        return frozenset(each.trajectory.id for each in failed if cause in each.faults | each.habits)

    trajectories = tuple(with_checks(each.trajectory, STYLE) for each in played)
    return Truth(
        target.name,
        seed,
        trajectories,
        {fault: having(fault) for fault in target.faults},
        {habit: having(habit) for habit in DISTRACTORS},
        failed_episodes(trajectories),
    )
