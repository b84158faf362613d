"""The gate on novelty: the nearest task of the target, by the user's words and by calls, must not be the same task."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from trace_jax.contract.trajectory import Check
from trace_jax.synthesis.disjoint import Conversations, calls_of, words_of
from trace_jax.synthesis.probes import ScriptedEpisode
from trace_jax.synthesis.prompt_gates import summarised

REPEATED = 0.8  # similarity from which on a task repeats another one
CHANCE = 0.2  # share of the seeds that may do so by their words alone, or by their calls alone
REMEDY = "draw other names, ids and amounts, and ask for something else"
WORDING = 0.5  # weight of a word without digits that no task has: other words make no other task
SAMPLE = 100  # tasks that tell how often the target repeats itself

Features = frozenset[str]


class Nearest:
    """Finds the most similar of ``tasks``, by the weighted Jaccard index: a rare word weighs more than a usual one."""

    def __init__(self, tasks: Sequence[Features]) -> None:
        self._tasks = [task for task in tasks if task]
        counts = Counter(word for task in self._tasks for word in task)
        self._weights = {word: 0.1 + math.log((1 + len(self._tasks)) / (1 + count)) for word, count in counts.items()}
        self._new = 0.1 + math.log(1 + len(self._tasks))  # of an identifier or a call that no task has

    def similarity(self, task: Features, without: int | None = None) -> float:
        """Of ``task`` to the nearest task; ``without`` is the number of one that is left out."""
        others = (other for number, other in enumerate(self._tasks) if number != without)
        return max((self._weight(task & other) / self._weight(task | other) for other in others), default=0.0)

    @property
    def repeated(self) -> float:
        """The share of the tasks that have a repetition among the others; of at most ``SAMPLE`` of them."""
        sample = range(0, len(self._tasks), -(-len(self._tasks) // SAMPLE) or 1)
        repeats = [self.similarity(self._tasks[number], number) >= REPEATED for number in sample]
        return sum(repeats) / len(repeats) if repeats else 0.0

    def _weight(self, features: Features) -> float:
        return sum(self._weights.get(each) or (WORDING if each.isalpha() else self._new) for each in features)


def novel(solved: Mapping[int, ScriptedEpisode], tasks: Conversations) -> Check:
    """No solved episode repeats a task of the target by its words and by its calls.

    By the one or the other alone it may happen to do so: in ``CHANCE`` of the seeds, and as often as the target's tasks
    repeat one another. The detail shows nothing of a task: it may be one of the held-out split.
    """
    by_words = _Compared("words", tasks.words, {seed: words_of(episode.heard) for seed, episode in solved.items()})
    by_calls = _Compared("calls", tasks.calls, {seed: calls_of(episode.sent) for seed, episode in solved.items()})
    both = [seed for seed in by_words.repeated if seed in by_calls.repeated]
    problems = [
        f"seed {seed}: by its words and by its calls it repeats a task of the target: {REMEDY}" for seed in both
    ]
    for compared in (by_words, by_calls):
        seeds = compared.repeated
        if len(seeds) > compared.by_chance():
            problems.append(
                f"seed {seeds[0]}: by its {compared.what} it repeats a task of the target (similarity "
                f"{compared.similar[seeds[0]]:.2f}), as do {len(seeds)} of {len(solved)} seeds: {REMEDY}"
            )
    return summarised("novel", problems, f"nearest task of the target: {by_words.told}, {by_calls.told}")


class _Compared:
    """Episodes by seed, compared with the target's tasks by one sort of features."""

    def __init__(self, what: str, known: Sequence[Features], episodes: Mapping[int, Features]) -> None:
        self.what, self._nearest = what, Nearest(known)
        self.similar = {seed: self._nearest.similarity(each) for seed, each in episodes.items() if each}
        self.repeated = [seed for seed, similarity in self.similar.items() if similarity >= REPEATED]
        self.told = f"{max(self.similar.values(), default=0.0):.2f} by {what} ({len(known)} tasks known)"

    def by_chance(self) -> float:
        """How many of the episodes may repeat a task."""
        count, share = len(self.similar), self._nearest.repeated if self.repeated else 0.0
        return (CHANCE + share) * count + 2 * math.sqrt(count * share * (1 - share))
