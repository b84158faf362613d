"""How much of what decides is left on the pages of compacted episodes, at several budgets of tokens.

    python -m benchmarks.compaction --helpdesk
    python -m benchmarks.compaction --runs=tau_retail.runs.json --domain=retail

Facts that decide are looked for in the messages themselves:

- failed call: a call whose result reports an error, or whose arguments cannot be read
- error: a result that reports one
- failed check: of the grader, with its detail
- final turn: the last message of the user, and the last of the agent
- last change: the last successful call of the episode

A fact is kept if its first 120 characters stand on the page, and whole if all of it does. Tokens are bounded by bytes,
or counted with ``--tokenizer``. "Before" is the whole episode without its policy.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from absl import app, flags

from evaluation.judging.helpdesk import demonstrator, play
from trace_jax.analysis.compact import compact
from trace_jax.analysis.episode import answered, reports_error
from trace_jax.analysis.importers import tau_bench
from trace_jax.analysis.token_count import Count, bounded_by_bytes, counted_by
from trace_jax.contract.trajectory import ToolCall, Trajectory
from trace_jax.environments.helpdesk.target import Helpdesk

_RUNS = flags.DEFINE_string("runs", None, "τ-bench result file")
_DOMAIN = flags.DEFINE_string("domain", "retail", "its domain")
_HELPDESK = flags.DEFINE_bool("helpdesk", False, "episodes of the helpdesk's demonstrator in place of a file")
_BUDGETS = flags.DEFINE_list("budgets", ["300", "500", "1000", "2000", "4000"], "tokens of a page")
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "directory of a tokenizer.json")

_FIRST = 120  # characters
_WHOLE = 10**9
_EVERYTHING = 10**7  # tokens

Fact = tuple[str, str]  # kind, and text as it stands on a page


def main(_: list[str]) -> None:
    """Print one table."""
    if not (_HELPDESK.value or _RUNS.value):
        raise SystemExit("give --runs=FILE, or --helpdesk")
    episodes = helpdesk() if _HELPDESK.value else tau_bench.load(str(_RUNS.value), _DOMAIN.value, "unknown")
    count = counted_by(_TOKENIZER.value) if _TOKENIZER.value else bounded_by_bytes()
    facts = [list(decisive(episode)) for episode in episodes]
    kinds = Counter(kind for found in facts for kind, _ in found)
    print(f"{len(episodes)} episodes; " + ", ".join(f"{kind}: {number}" for kind, number in kinds.items()))
    print(f"| budget | tokens a page | largest | {' | '.join(kinds)} | all | whole |")
    print("|---|---|---|" + "---|" * (len(kinds) + 2))
    for budget in (_EVERYTHING, *map(int, _BUDGETS.value)):
        print(_row(budget, episodes, facts, list(kinds), count))


def _row(budget: int, episodes: Sequence[Trajectory], facts: list[list[Fact]], kinds: list[str], count: Count) -> str:
    pages = [compact(episode, budget, count) for episode in episodes]
    sizes = [count(page) for page in pages]
    cells = [
        f"{_share(pages, [[fact for fact in found if fact[0] == kind] for found in facts], _FIRST):.3f}"
        for kind in kinds
    ]
    both = f"{_share(pages, facts, _FIRST):.3f} | {_share(pages, facts, _WHOLE):.3f}"
    name = "before" if budget == _EVERYTHING else str(budget)
    return f"| {name} | {np.mean(sizes):.0f} | {max(sizes)} | {' | '.join(cells)} | {both} |"


def _share(pages: Sequence[str], facts: Sequence[Sequence[Fact]], first: int) -> float:
    hits = [text[:first] in page for page, found in zip(pages, facts, strict=True) for _, text in found]
    return float(np.mean(hits)) if hits else 1.0


def decisive(episode: Trajectory) -> Iterator[Fact]:
    """The facts of an episode that decide."""
    pending: list[ToolCall] = []
    changed: ToolCall | None = None
    for message in episode.messages:
        for call in message.tool_calls:
            pending.append(call)
            if call.arguments is None:
                yield "failed call", _call(call)
        if message.role == "tool" and pending:
            made = answered(pending, message)
            if reports_error(message.content or ""):
                yield "error", _plain(message.content or "")
                if made is not None and made.arguments is not None:
                    yield "failed call", _call(made)
            else:
                changed = made or changed
    for role in ("user", "assistant"):
        said = [message.content for message in episode.messages if message.role == role and message.content]
        if said:
            yield "final turn", _plain(said[-1])
    if changed is not None:
        yield "last change", _call(changed)
    for check in episode.checks:
        if not check.passed:
            yield "failed check", _plain(f"check {check.name}: failed {check.detail}")


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _call(call: ToolCall) -> str:
    if call.arguments is None:
        return _plain(f"> {call.name}({call.raw_arguments or ''})")
    return _plain(f"> {call.name}({', '.join(f'{key}={value!r}' for key, value in call.arguments.items())})")


def helpdesk(trials: int = 2) -> list[Trajectory]:
    """Every training ticket, played by the demonstrator that lacks four capabilities."""
    target = Helpdesk()
    return [
        play(target.environment("train"), task, trial, demonstrator(0, task, trial))
        for task in target.tasks("train")
        for trial in range(trials)
    ]


if __name__ == "__main__":
    app.run(main)
