"""Methods on a tiny target, played by the real engine: the same luck for all, the same episode only once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from evaluation import statistics
from evaluation.aggregate import compare_over_seeds, print_aggregate, read_reports, shared_methods
from evaluation.methods import Method, evaluate_methods, plan_episodes
from evaluation.routed import assign, confusion_of, route_tasks
from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import train_tokenizer
from trace_jax.contract.files import write_document
from trace_jax.contract.routing import Route, RouteTable
from trace_jax.contract.trajectory import Message
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.settings import EngineSettings
from trace_jax.environments.protocol import Observation, Outcome
from trace_jax.environments.source import target_source
from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.lora import LoRA, init_lora
from trace_jax.rollout.player import collect
from trace_jax.rollout.settings import RolloutSettings
from trace_jax.routing.baselines import OracleRouter

BASE = "0123456789abcdef"


class Guess:
    """One turn; passes when the answer has an odd number of characters. Task 3 breaks if ``fragile``."""

    name, tools = "guess", ()

    def __init__(self, fragile):
        self.fragile, self.said = fragile, ""

    def reset(self, seed):
        if self.fragile and seed == 3:
            raise OSError("the desk is on fire")
        return Observation((Message(role="user", content=f"guess {seed}"),))

    def step(self, message):
        self.said = message.content or ""
        return Observation((), done=True)

    def grade(self):
        return Outcome(float(len(self.said) % 2))


class Guessing:
    name, results = "guessing", {}

    def __init__(self, fragile=False):
        self.fragile = fragile

    def tasks(self, split):
        return tuple(range(12))

    def environment(self, split):
        return Guess(self.fragile)


@pytest.fixture(scope="module")
def serving():
    renderer = TinyRenderer(train_tokenizer(["guess"], 300))
    config = DecoderConfig(300, 16, 1, 2, 1, 8, 16)
    engine = EmbeddedEngine(
        Decoder(config, nnx.Rngs(0)),
        config,
        renderer.stop_token_ids,
        EngineSettings(slots=8, capacity=64),
        max_rank=8,
        max_adapters=3,
    )
    loras = {}
    for i, name in enumerate(("a", "b")):
        fresh = init_lora(config, 4, 64.0, key=jax.random.key(i))
        loras[name] = LoRA(
            jax.tree.map(lambda x, i=i: x + 0.3 * jax.random.normal(jax.random.key(i), x.shape), fresh.weights),
            fresh.scale,
        )
        engine.set_adapter(name, loras[name])
    engine.set_adapter("twin", loras["a"])
    return engine, renderer, loras


def run(serving, methods, target=None, **changes):
    engine, renderer, _ = serving
    target = target or Guessing()
    play = partial(
        collect,
        engine=engine,
        renderer=renderer,
        settings=RolloutSettings(max_turns=2, max_episode_tokens=64),
        base=BASE,
    )
    arguments = {"trials": 3, "run": play, "max_tokens": 6, "seed": 5, **changes}
    return evaluate_methods(methods, source_of(target), **arguments)


def source_of(target):
    return target_source(target, target.name, "held_out", 12)


def always(name, adapter, temperature=1.0, spent=0):
    return Method(name, temperature, lambda task: adapter, spent)


def test_methods_that_choose_alike_share_episodes_and_the_rest_share_their_luck(serving):
    mixed = Method("mixed", 1.0, lambda task: "a" if task % 2 else None, 7)
    found = run(serving, [always("base", None), always("a", "a"), mixed], baselines=("base",))
    base, only, routed = found.report.methods
    for task in map(str, range(12)):
        assert routed.rewards[task] == (only if int(task) % 2 else base).rewards[task]
        assert len(base.rewards[task]) == 3
    assert len(found.trajectories) == 2 * 12 * 3 and routed.rollouts_spent == 7
    assert base.rewards != only.rewards  # the adapter does act
    assert {t.policy.adapter for t in found.trajectories} == {None, "a"}
    assert 0.0 < base.pass_rate.mean < 1.0 and base.pass_rate == statistics.pass_rate(base.rewards)
    (difference,) = [c.difference for c in found.report.comparisons if c.method == "a"]
    assert difference.mean == pytest.approx(only.pass_rate.mean - base.pass_rate.mean)


def test_random_numbers_are_common_to_methods(serving):
    """The same weights under another name have the same luck."""
    ours, twin = run(serving, [always("a", "a"), always("twin", "twin")]).report.methods
    assert ours.rewards == twin.rewards


def test_result_does_not_depend_on_the_company_and_repeats(serving):
    alone = run(serving, [always("a", "a")]).report.methods[0]
    crowd = run(serving, [always("base", None), always("b", "b"), always("a", "a"), always("cold", "a", 0.0)]).report
    assert crowd.methods[2].rewards == alone.rewards
    assert run(serving, [always("a", "a")], seed=6).report.methods[0].rewards != alone.rewards


def test_greedy_is_played_once_a_task_unless_asked(serving):
    cold = always("base", None, 0.0)
    assert all(len(row) == 1 for row in run(serving, [cold]).report.methods[0].rewards.values())
    twice = run(serving, [cold], greedy_trials=2).report.methods[0]
    assert all(row[0] == row[1] for row in twice.rewards.values())
    assert len(plan_episodes([cold, always("x", None, 0.0)], range(12), 3)) == 12


def test_broken_episodes_are_counted_flagged_and_in_no_figure(serving):
    found = run(serving, [always("base", None)], Guessing(fragile=True)).report
    (base,) = found.methods
    assert base.rewards["3"] == (None, None, None) and base.broken == 3
    whole = run(serving, [always("base", None)]).report.methods[0].rewards
    others = [np.mean(row) for task, row in whole.items() if task != "3"]
    assert base.pass_rate.mean == pytest.approx(np.mean(others))
    assert "3 of 36 episodes broke, more than 5%" in found.notes["broken:base@1"]


def test_nonsense_is_refused(serving):
    with pytest.raises(UserError, match="method 'a' is listed twice at temperature 1"):
        run(serving, [always("a", "a"), always("a", "b")])
    with pytest.raises(UserError, match="baseline 'nobody' is not among"):
        run(serving, [always("a", "a")], baselines=("nobody",))
    with pytest.raises(UserError, match="0 trials"):
        run(serving, [always("a", "a")], trials=0)
    with pytest.raises(UserError, match="method 'lost': no task has a graded trial"):
        run(serving, [always("lost", "not loaded")])


def test_routing_ahead_names_merges_once_and_counts_confusion(serving):
    _, _, loras = serving
    routes = tuple(Route(adapter=name, capability=name, description=name) for name in loras)
    table = RouteTable(base=BASE, router="oracle", routes=routes)
    truth = {task: ("", "a", "b")[task % 3] for task in range(12)}
    router = OracleRouter(table, {str(t): a for t, a in truth.items()})
    decisions = route_tasks(router, source_of(Guessing()))
    assert assign(decisions, loras).adapter == {task: name or None for task, name in truth.items()}
    confusion = confusion_of(decisions, truth, ("", "a", "b"))
    assert confusion.counts == ((4, 0, 0), (0, 4, 0), (0, 0, 4)) and confusion.accuracy == 1.0
    blended = {t: d.replace(adapters={"a": 0.5, "b": 0.25}) if t < 2 else d for t, d in decisions.items()}
    routing = assign(blended, loras)
    (name,) = routing.merged
    assert routing.adapter[0] == routing.adapter[1] == name == "0.500000*a+0.250000*b"
    merged = routing.merged[name]
    assert merged.rank == 8 and jnp.isfinite(merged.weights["q_proj"]["b"]).all()


def test_a_task_that_cannot_be_opened_for_routing_is_named(serving):
    table = RouteTable(base=BASE, router="oracle", routes=())
    with pytest.raises(UserError, match=r"target 'guessing': held_out task 3 .*OSError: the desk is on fire"):
        route_tasks(OracleRouter(table, {}), source_of(Guessing(fragile=True)))


def test_a_report_given_twice_is_refused(evaluation, tmp_path):
    paths = [str(tmp_path / name) for name in ("a.json", "b.json", "copy.json")]
    for path, seed in zip(paths, (0, 1, 0), strict=True):
        write_document(path, evaluation.replace(seed=seed))
    assert [report.seed for report in read_reports(paths[:2])] == [0, 1]
    for twice in (paths[0], str(tmp_path / "." / "a.json"), paths[2]):
        with pytest.raises(UserError, match=r"the same report as .*a\.json: give each seed's report once"):
            read_reports([*paths[:2], twice])


def test_several_seeds_are_aggregated_by_method(serving, capsys):
    methods = [always("base", None), always("a", "a"), always("base", None, 0.0)]
    reports = [run(serving, methods + [always(f"only{s}", "b")], seed=s).report for s in range(3)]
    assert set(shared_methods(reports)) == {("base", 1.0), ("a", 1.0), ("base", 0.0)}
    (found,) = compare_over_seeds(reports, ["base"])
    gaps = [r.methods[1].pass_rate.mean - r.methods[0].pass_rate.mean for r in reports]
    assert (found.method, found.temperature) == ("a", 1.0) and found.difference.mean == pytest.approx(np.mean(gaps))
    print_aggregate(reports, ["base"])
    assert f"{100 * np.mean([r.methods[1].pass_rate.mean for r in reports]):.1f}" in capsys.readouterr().out
    with pytest.raises(UserError, match="baseline 'only1' is not in every report"):
        compare_over_seeds(reports, ["only1"])
    with pytest.raises(UserError, match="different targets or splits"):
        shared_methods([reports[0], reports[1].replace(split="train")])
