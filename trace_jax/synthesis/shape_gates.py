"""The gate on shapes: calls and results of a solved episode look like those in the target's own episodes."""

from collections import Counter
from collections.abc import Mapping

from trace_jax.contract.trajectory import Check
from trace_jax.synthesis.probes import ScriptedEpisode
from trace_jax.synthesis.prompt_gates import summarised
from trace_jax.synthesis.shapes import NEW, Shapes, leaves, refused

NOTHING_SEEN = "no episode of the target shows the shapes of its calls"


def shapes_of_target(solved: Mapping[int, ScriptedEpisode], seen: Shapes) -> Check:
    """A field fails if more of its values are foreign than the target's episodes lead to expect, and ``NEW`` more."""
    if not seen.calls:
        return Check(name="shapes_of_target", passed=True, detail=NOTHING_SEEN)
    first: dict[str, str] = {}
    foreign, all_values, exchanges = Counter[str](), Counter[str](), 0
    for seed, episode in solved.items():
        for exchange in episode.exchanges:
            if refused(exchange.call, exchange.result):
                continue
            exchanges += 1
            all_values.update(name for name, _ in leaves(exchange.call, exchange.result))
            for name, what in seen.foreign(exchange.call, exchange.result):
                foreign[name] += 1
                first.setdefault(name, f"seed {seed}: {what}")
    problems = [
        first[name] for name, count in foreign.items() if count > (seen.expected(name) + NEW) * all_values[name]
    ]
    fine = f"the fields of {exchanges} calls look like those of {sum(seen.calls.values())} calls of the target"
    return summarised("shapes_of_target", problems, fine)
