"""Claims: each example environment passes every gate in the shapes of τ²-bench, and pays habits less than the skill."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from trace_jax.contract.trajectory import Message, Tool
from trace_jax.environments.kit import call
from trace_jax.environments.protocol import Prompting
from trace_jax.sandbox import Sandbox, SandboxedFactory, SandboxedModule, SandboxSettings
from trace_jax.synthesis.gates import run_gates
from trace_jax.synthesis.probes import play, solve

SHAPES = json.loads((Path(__file__).parent / "fixtures" / "tau2_shapes.json").read_text())
EASY_AND_HARD = {  # knobs at both ends
    ("airline_booking", "SplitPayment"): ({"passengers": 1, "methods": 2, "bags": 1}, {"passengers": 4, "bags": 6}),
    ("airline_cancellation", "CancelWithinPolicy"): ({"asked": 2}, {"asked": 5, "claims": 1}),
    ("retail_exchange", "CollectBeforeExchange"): ({"variants": 3}, {"later": 3, "variants": 9}),
    ("retail_return", "GatherBeforeReturn"): ({"orders": 2, "twins": 0}, {"orders": 5, "returns": 2}),
    ("retail_variants", "ReadVariantsExactly"): ({"variants": 6}, {"items": 2, "variants": 18}),
}
EXAMPLES = list(EASY_AND_HARD)
MODULES = Path("examples/environments")


def made(module, name, **knobs):
    return getattr(import_module(f"examples.environments.{module}"), name)(**knobs)


def failed(module, make, seeds):
    shapes = SHAPES[module.partition("_")[0]]
    tools = tuple(Tool.model_validate(tool) for tool in shapes["tools"])
    checks = run_gates(make, tools, shapes["results"], seeds)
    return {check.name: check.detail for check in checks if not check.passed}


def test_every_module_is_an_example():
    assert sorted(path.stem for path in MODULES.glob("[a-z]*.py")) == sorted(module for module, _ in EXAMPLES)


def test_one_example_passes_every_gate():
    module, name = EXAMPLES[3]
    assert failed(module, lambda: made(module, name, contrast_every=4), range(6)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), EXAMPLES)
def test_an_example_passes_every_gate(module, name):
    assert failed(module, lambda: made(module, name, contrast_every=4), range(6)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), EXAMPLES)
@pytest.mark.parametrize("end", [0, 1])
def test_an_example_passes_every_gate_at_both_ends_of_its_difficulty(module, name, end):
    assert failed(module, lambda: made(module, name, **EASY_AND_HARD[module, name][end]), range(16)) == {}


def sandboxed(module, name, **knobs):
    source = (MODULES / f"{module}.py").read_text()
    return SandboxedFactory(SandboxedModule(source, name, knobs), Sandbox(SandboxSettings()))


def test_a_sandbox_plays_an_example_as_this_process_does():
    module, name = EXAMPLES[-1]
    make = sandboxed(module, name)
    found = play(make(), 3, solve)
    make.close()
    assert found.fingerprint() == play(made(module, name), 3, solve).fingerprint() and found.reward == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name"), EXAMPLES)
def test_an_example_passes_every_gate_in_the_sandbox(module, name):
    make = sandboxed(module, name, contrast_every=4)
    assert failed(module, make, range(4)) == {}
    make.close()


@pytest.mark.parametrize(("module", "name"), EXAMPLES)
def test_an_example_is_one_module_on_the_kit(module, name):
    """It stands alone, so that a sandbox can run it."""
    lines = (MODULES / f"{module}.py").read_text().splitlines()
    imports = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}
    ours = {each for each in imports if each.startswith(("trace_jax", "examples"))}
    assert ours == {"trace_jax.environments", "trace_jax.environments.kit"}


@pytest.mark.parametrize(("module", "name"), EXAMPLES)
def test_a_hint_helps_every_episode_and_answers_none(module, name):
    environment = made(module, name)
    hints = set()
    for seed in range(4):
        environment.reset(seed)
        hints.add(environment.hint())
    (hint,) = hints
    assert 100 < len(hint) < 400 and "credit_card_" not in hint


@pytest.mark.parametrize(("module", "name"), EXAMPLES)
def test_prompts_show_a_router_both_sorts_of_episodes(module, name):
    environment = made(module, name)
    assert isinstance(environment, Prompting)
    found = [environment.prompts(seed) for seed in range(4)]
    assert len({each.exercised for each in found}) == len({each.routine for each in found}) == 4
    assert all(each.exercised != each.routine for each in found)
    assert {message.role for each in found for message in (*each.exercised, *each.routine)} == {"system", "user"}


def habit(module, name, seed, change, **knobs):
    """The reward of the solution after ``change`` has turned it into what a base agent does out of habit."""
    environment = made(module, name, **knobs)

    def script(environment, episode):
        yield from change(environment, [message for message in environment.solution()])

    return play(environment, seed, script).reward


def said(text):
    return Message(role="assistant", content=text)


def acting(name, **arguments):
    return Message(role="assistant", tool_calls=(call(name, **arguments),))


def cancel_everything(environment, solution):
    (user,) = environment.world.users.values()
    yield said("Shall I?")
    for key in user["reservations"]:
        yield acting("cancel_reservation", reservation_id=key)
    yield said("Done.")


def exchange_at_once(environment, solution):
    (made,) = solution[-2].tool_calls
    first = {name: value[:1] if isinstance(value, list) else value for name, value in made.arguments.items()}
    yield acting(made.name, **first)
    yield said("Done.")
    yield from solution[-3:]


def pay_by_card(environment, solution):
    (made,) = solution[-2].tool_calls
    (user,) = environment.world.users.values()
    total = sum(payment["amount"] for payment in made.arguments["payment_methods"])
    card = {"payment_id": next(iter(user["payment_methods"])), "amount": total}
    yield from solution[:-2]
    yield acting(made.name, **made.arguments | {"payment_methods": [card]})
    yield said("Done.")


def refund_to_the_gift_card(environment, solution):
    (made,) = solution[-2].tool_calls
    (user,) = environment.world.users.values()
    yield from solution[:-2]
    yield acting(made.name, **made.arguments | {"payment_method_id": list(user["payment_methods"])[2]})
    yield said("Done.")


def take_any_variant(environment, solution):
    (made,) = solution[-2].tool_calls
    products = environment.world.products.values()
    wanted = made.arguments["new_item_ids"][0]
    variants = next(each["variants"] for each in products if wanted in each["variants"])
    other = next(k for k, v in variants.items() if v["available"] and k not in (wanted, made.arguments["item_ids"][0]))
    yield from solution[:-2]
    yield acting(made.name, **made.arguments | {"new_item_ids": [other]})
    yield said("Done.")


HABITS = {
    ("airline_booking", "SplitPayment"): pay_by_card,
    ("airline_cancellation", "CancelWithinPolicy"): cancel_everything,
    ("retail_exchange", "CollectBeforeExchange"): exchange_at_once,
    ("retail_return", "GatherBeforeReturn"): refund_to_the_gift_card,
    ("retail_variants", "ReadVariantsExactly"): take_any_variant,
}


@pytest.mark.parametrize(("module", "name"), EXAMPLES)
def test_a_habit_earns_a_part_and_the_skill_earns_all(module, name):
    rewards = [habit(module, name, seed, HABITS[module, name]) for seed in range(8)]
    assert any(0.0 < reward < 1.0 for reward in rewards), rewards
    assert sum(rewards) / len(rewards) < 0.8
    assert all(play(made(module, name), seed, solve).reward == 1.0 for seed in range(8))
