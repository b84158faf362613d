"""Shows the rules analyst agents with planted faults, and prints which faults it finds.

    python -m benchmarks.planted_faults [--seeds=3] [--episodes=120] [--style=aspects,coarse,none]

Each target has four systematic faults, played by a scripted agent, and habits that change no grade (verbose, extra
lookups, polite). A fault counts as found if some selected capability has failed examples of which 80 % have the fault
and which are 50 % of all failed episodes with it. Styles: ``aspects``: the grader's checks are named
``kind.aspect``; ``coarse``: it has one check for the state and one for the replies; ``none``: it has the reward alone.
"""

from absl import app, flags

from benchmarks.planted.score import Verdict, judge
from evaluation.planted.bank import BANK
from evaluation.planted.calendar import CALENDAR
from evaluation.planted.grading import STYLES
from evaluation.planted.hotel import HOTEL
from evaluation.planted.planner import PLANNER

_SEEDS = flags.DEFINE_integer("seeds", 3, "draws of each target", lower_bound=1)
_EPISODES = flags.DEFINE_integer("episodes", 120, "episodes of a draw", lower_bound=1)
_STYLES = flags.DEFINE_list("style", list(STYLES), "graders: aspects, coarse, none")

TARGETS = (CALENDAR, BANK, HOTEL, PLANNER)


def main(_: list[str]) -> None:
    """Print a row for each target and fault, then the sums."""
    for style in (style for style in STYLES if style in _STYLES.value):
        print(f"\n{_EPISODES.value} episodes, checks: {style}\n")
        print("| target | fault | found | selected (coverage, precision) by seed |\n|---|---|---|---|")
        found = distractors = others = 0
        for target in TARGETS:
            verdicts = [judge(target, seed, _EPISODES.value, style) for seed in range(_SEEDS.value)]
            for fault in target.faults:
                hits = sum(_found(verdict, fault) for verdict in verdicts)
                found += hits
                print(f"| {target.name} | {fault} | {hits}/{len(verdicts)} | {_cells(verdicts, fault)} |")
            distractors += sum(len(verdict.distractors) for verdict in verdicts)
            others += sum(len(verdict.others) for verdict in verdicts)
            for verdict in verdicts:
                for name in verdict.distractors:
                    print(f"| {target.name} | a distractor! | | {name} |")
                for match in verdict.others:
                    print(f"| {target.name} | no one fault | | {match.capability} ({match.precision:.2f}) |")
        total = _SEEDS.value * sum(len(target.faults) for target in TARGETS)
        print(f"\n{found}/{total} faults found; {distractors} distractors and {others} mixtures selected.")


def _found(verdict: Verdict, fault: str) -> bool:
    match = verdict.faults[fault]
    return match is not None and match.found


def _cells(verdicts: list[Verdict], fault: str) -> str:
    cells = []
    for verdict in verdicts:
        match = verdict.faults[fault]
        if match is None or not match.coverage:
            cells.append("–")
        else:
            mark = "" if match.found else "✗ "
            cells.append(f"{mark}{match.capability} ({match.coverage:.2f}, {match.precision:.2f})")
    return "; ".join(cells)


if __name__ == "__main__":
    app.run(main)
