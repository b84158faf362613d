"""The reward-search probe: a hill climb over tool calls, with the reward as its only signal, must not get it.

The search never reads what the user says. It may use the tools' schemas and everything that tools return. It climbs on
the mean reward of ``LEARNT`` seeds; the program that it finds is judged on the other seeds, since luck on a few seeds
teaches no policy anything. The budget is ``PROGRAMS`` programs of at most ``blind.STEPS`` calls a turn and
``MOST_STEPS`` messages an episode.
"""

from collections.abc import Sequence

import numpy as np

from trace_jax.contract.trajectory import Check
from trace_jax.synthesis.blind import Program, changed, fresh
from trace_jax.synthesis.canary_gates import spelled
from trace_jax.synthesis.probes import play
from trace_jax.synthesis.prompt_gates import Factory, summarised

LEARNT = 6  # seeds on which the search climbs, at most half of all
TRIED = 2  # of them, after which a program that has earned nothing is given up
PROGRAMS = 256  # that the search tries
MOST_STEPS = 16  # of an episode
BLIND = 0.3  # most that the program found may earn on average on the other seeds


def reward_search(make: Factory, seeds: Sequence[int]) -> Check:
    """The best program that the search finds earns at most ``BLIND`` on the seeds that it did not learn on."""
    learnt = max(min(LEARNT, len(seeds) // 2), 1)
    program = best_program(make, seeds[:learnt])
    judged = seeds[learnt:] or seeds
    episodes = {seed: play(make(), seed, program, most=MOST_STEPS) for seed in judged}
    mean = float(np.mean([episode.reward for episode in episodes.values()]))
    budget = f"{PROGRAMS} programs on {learnt} seeds"
    fine = f"mean reward {mean:.3f} without reading the user, at most {BLIND} is allowed; {budget}"
    if mean <= BLIND:
        return summarised("reward_search", [], fine)
    best = max(episode.reward for episode in episodes.values())
    seed = next(seed for seed, episode in episodes.items() if episode.reward == best)
    calls = "; ".join(spelled(exchange.call) for exchange in episodes[seed].exchanges) or "no call"
    return summarised("reward_search", [f"seed {seed}: {calls}, reply {program.reply!r}, earns {best:g}: {fine}"], fine)


def best_program(make: Factory, seeds: Sequence[int]) -> Program:
    """A hill climb from doing nothing. As long as nothing earns anything, each program is a new one."""
    rng, tools = np.random.default_rng([4, *map(abs, seeds)]), make().tools
    best, most = Program(), _earned(make, Program(), seeds, 0.0)
    for _ in range(PROGRAMS):
        candidate = changed(rng, best, tools) if most else fresh(rng, tools)
        earned = _earned(make, candidate, seeds, most)
        if earned >= most:  # of two that earn the same the later is kept, to leave plateaus
            best, most = candidate, earned
        if most == len(seeds):
            break
    return best


def _earned(make: Factory, program: Program, seeds: Sequence[int], most: float) -> float:
    """The sum of rewards on ``seeds``, in which one that cannot reach ``most`` or begins with nothing is cut short."""
    earned = 0.0
    for number, seed in enumerate(seeds):
        if earned + len(seeds) - number < most or (number == TRIED and not earned):
            break
        earned += play(make(), seed, program, most=MOST_STEPS).reward
    return earned
