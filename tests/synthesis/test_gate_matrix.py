"""Claims: each planted fault is refused by the gates that are named for it and by no other, and each gate is needed.

``python -m benchmarks.design_yield`` prints the same matrix.
"""

import pytest

from benchmarks.planted_designs.faults import FAULTS
from benchmarks.planted_designs.library import Fines
from benchmarks.planted_designs.matrix import SOUND, matrix
from trace_jax.synthesis import gates, search_gates

GATES = (
    "deterministic", "seeds_differ", "tools_of_target", "solution_earns_1", "do_nothing", "always_refuse", "random",
    "wrong_change_costs", "bad_calls_answered", "results_of_target", "no_leak", "disjoint", "prompts", "canaries",
    "reward_search", "goal_mutants", "novel", "shapes_of_target", "hint", "same_in_two_processes",
)  # fmt: skip


SEARCHED = (Fines, *(fault.make for fault in FAULTS.values() if "reward_search" in fault.gates))


def short_but_for_those_it_finds(make, seeds):
    """The whole reward search where it should find a program, and of the sound environment; elsewhere a tenth of it."""
    with pytest.MonkeyPatch.context() as patch:
        if make not in SEARCHED:
            patch.setattr(search_gates, "PROGRAMS", search_gates.PROGRAMS // 10)
        return search_gates.reward_search(make, seeds)


@pytest.fixture(scope="module", params=["short search", pytest.param("whole search", marks=pytest.mark.slow)])
def found(request):
    """All checks of every planted environment."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "short search":
            patch.setattr(gates, "reward_search", short_but_for_those_it_finds)
        return matrix()


def test_the_matrix_is_complete(found):
    assert list(found) == [SOUND, *FAULTS] and len(FAULTS) >= 14
    assert {tuple(check.name for check in checks) for checks in found.values()} == {GATES}


def test_the_sound_environment_passes_every_gate(found):
    assert [check for check in found[SOUND] if not check.passed] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_refused_by_its_gates_alone(found, fault):
    failed = {check.name: check.detail for check in found[fault] if not check.passed}
    assert set(failed) == set(FAULTS[fault].gates), failed


def test_each_gate_refuses_a_fault_that_no_other_gate_sees():
    assert {fault.gates[0] for fault in FAULTS.values() if len(fault.gates) == 1} == set(GATES)


def test_feedback_names_the_smallest_seed_that_shows_the_fault(found):
    """Except for the tools, which are the same on every seed."""
    for fault, checks in found.items():
        for check in checks:
            if not check.passed and check.name != "tools_of_target":
                assert "seed" in check.detail, (fault, check)
    details = {check.name: check.detail for fault in FAULTS for check in found[fault] if not check.passed}
    assert details["deterministic"].startswith("seed 0 gave another episode")
    assert "seed 0: one argument is changed: pay" in next(
        check.detail for check in found["pays for any amount"] if check.name == "canaries"
    )
    assert "renew {'book_id': " in details["reward_search"] or "no call" in details["reward_search"]
