"""Claims about what is compared with a target's episodes: words, calls and shapes, and what chance explains."""

import json

import pytest

from benchmarks.planted_designs.library import Fines, target
from trace_jax.contract.trajectory import Message, Policy, ToolCall, Trajectory
from trace_jax.synthesis.disjoint import Conversations, calls_of, conversations, words_of
from trace_jax.synthesis.novelty_gates import Nearest, novel
from trace_jax.synthesis.probes import ScriptedEpisode, play, solve
from trace_jax.synthesis.shape_gates import NOTHING_SEEN, shapes_of_target
from trace_jax.synthesis.shapes import Shapes, leaves, shape


def words(*texts):
    return tuple(frozenset(text.split()) for text in texts)


def test_rare_words_decide_what_is_nearest():
    nearest = Nearest(words(*(f"please refund the order O{n} of C{n}" for n in range(50))))
    same_form, same_order = words("please refund the order O77 of C77", "refund O3 of customer C3")
    assert nearest.similarity(same_form) < 0.3 < 0.5 < nearest.similarity(same_order)
    assert nearest.similarity(*words("please refund the order O3 of C3")) == pytest.approx(1.0)
    assert nearest.repeated == 0.0
    assert Nearest(words("a b", "a b", "c d", "e f")).repeated == 0.5
    assert Nearest(()).similarity(*words("a")) == 0.0


def episode(text, *calls):
    made = tuple(Message(role="assistant", tool_calls=(ToolCall(id="c", name=name, arguments=a),)) for name, a in calls)
    return ScriptedEpisode(heard=[Message(role="user", content=text)], sent=list(made))


def known(count=40):
    tasks = [episode(f"refund order O{n}", ("refund", {"order": n})) for n in range(count)]
    return Conversations(
        words=tuple(words_of(each.heard) for each in tasks), calls=tuple(calls_of(each.sent) for each in tasks)
    )


def test_a_single_task_that_is_repeated_by_words_and_calls_is_refused():
    fresh = {seed: episode(f"refund order O{seed + 900}", ("refund", {"order": seed + 900})) for seed in range(15)}
    assert novel(fresh, known()).passed
    found = novel(fresh | {15: episode("Refund order O7, please.", ("refund", {"order": 7}))}, known())
    assert not found.passed and found.detail.startswith("seed 15: by its words and by its calls")
    assert "O7" not in found.detail, "it may be a held-out task"


def test_few_repetitions_by_one_of_the_two_are_chance_and_many_are_not():
    def mixed(repeated):
        return {
            seed: episode(f"o{seed} back to the shop", ("refund", {"order": seed if seed < repeated else 900 + seed}))
            for seed in range(16)
        }

    assert novel(mixed(3), known()).passed
    found = novel(mixed(5), known())
    assert not found.passed and "seed 0: by its calls" in found.detail and "5 of 16 seeds" in found.detail


def test_a_target_that_repeats_itself_allows_for_repetitions():
    tasks = known(10)
    twice = Conversations(words=tasks.words, calls=(*tasks.calls, *tasks.calls))
    repeating = {seed: episode(f"x{seed}", ("refund", {"order": seed})) for seed in range(10)}
    assert not novel(repeating, tasks).passed and novel(repeating, twice).passed


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("O41", "string A9"), ("mia_li_3668", "string a_a_9"), ("2024-05-15", "string 9-9-9"), ("two words", "text"),
        (7, "integer of 1 digits"), (-12.5, "number of -2 digits"), (12.0, "integer of 2 digits"), (True, "boolean"),
        (None, "null"), ([], "empty list"),
    ],
)  # fmt: skip
def test_shapes(value, expected):
    assert shape(value) == expected


OPEN = {"status": "open"}


def call(name="pay", result=OPEN, **arguments):
    made = ToolCall(id="1", name=name, arguments=arguments)
    return made, Message(role="tool", content=json.dumps(result), tool_call_id="1")


def seen(**more):
    shapes = Shapes()
    shapes.add(
        call(result={"status": status, "M1": {"due": 12.5}}, order=f"O{n}", amount=n, **more)
        for n, status in enumerate(["paid", "open", "late"] * 14)
    )
    return shapes


def foreign(shapes, *, result=OPEN, **arguments):
    return [name for name, _ in shapes.foreign(*call(result=result, **arguments))]


def test_what_is_foreign_to_the_targets_episodes():
    shapes = seen()
    assert foreign(shapes, order="O7", amount=3, result={"status": "open", "M77": {"due": 3}}) == []
    assert foreign(shapes, order="R-7", amount=3) == ["pay.order"]
    assert foreign(shapes, order="O7", amount="3") == ["pay.amount"]
    assert foreign(shapes, order="O7", amount=12345) == ["pay.amount"]
    assert foreign(shapes, order="O7", amount=2.5) == ["pay.amount"]
    assert foreign(shapes, order="O7", note="x") == ["pay.note"]
    assert foreign(shapes, order="O7", result={"status": "cancelled"}) == ["pay ->.status"]
    assert foreign(shapes, order="R-7", result={"error": "no order"}) == [], "refused calls show nothing"
    assert foreign(Shapes(), order="R-7") == [], "a tool that was never seen has no shape"


def test_names_of_places_are_no_closed_set():
    shapes = Shapes()
    shapes.add(call(city=city) for city in ["Rome", "Oslo", "Lima"] * 12)
    assert foreign(shapes, city="Paris") == []


def test_keys_that_are_identifiers_are_one_field():
    names = [name for name, _ in leaves(*call(result={"M1": {"day": 1}, "M22": {"day": 2}, "rest": [3]}))]
    assert names == ["pay ->.A9.day", "pay ->.A9.day", "pay ->.rest[]"]


def test_shapes_come_from_recorded_episodes_where_there_is_no_practice():
    environment = Fines()
    solved = {seed: play(environment, seed, solve) for seed in range(12)}
    recorded = [
        Trajectory(
            id=str(seed), target="t", task=str(seed), split="train", seed=seed, trial=0, policy=Policy(base="b"),
            messages=tuple(woven(each)), reward=1.0, termination="done",
        )
        for seed, each in solved.items()
    ]  # fmt: skip

    class Plain:
        name, results = "plain", {}

    found = conversations(Plain(), recorded)
    assert found.shapes.calls == {"list_books": 12, "pay": 12} and len(found.words) == len(found.calls) == 12
    assert shapes_of_target(solved, found.shapes).passed
    assert shapes_of_target(solved, Shapes()).detail == NOTHING_SEEN
    assert not novel(solved, found).passed, "they are the target's own"


def woven(episode):
    """The messages of an episode in their order."""
    heard = iter(episode.heard)
    yield from (next(heard), next(heard))
    for message in episode.sent:
        yield message
        if message.tool_calls:
            yield next(heard)


def test_the_librarys_practice_shows_its_shapes():
    assert conversations(target()).shapes.calls["pay"] >= 20
