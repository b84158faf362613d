"""Claims: the gates run in processes of their own; a hang, a crash and a dependence on hashes are failed checks."""

import time

import pytest

from trace_jax.contract.capability import Candidate
from trace_jax.contract.environment import Design
from trace_jax.environments.helpdesk.practice import FAMILIES, FamilyPractice
from trace_jax.environments.helpdesk.target import Helpdesk
from trace_jax.environments.registry import ENVIRONMENTS
from trace_jax.synthesis.designer import make_brief
from trace_jax.synthesis.isolated import DETAIL_CHARACTERS, run_isolated

BRIEF = make_brief(
    Candidate(name="compute_over_values", description=""), Design(entry_point="helpdesk", parameters={}), Helpdesk()
)
STRANGE = """
import time
from trace_jax.environments.helpdesk.practice import VerifyBeforeActing

class Hanging(VerifyBeforeActing):
    def step(self, message):
        while True:
            time.sleep(1)

class Crashing(VerifyBeforeActing):
    def grade(self):
        raise KeyError("no grade today" + 5000 * "!")

class Hashing(VerifyBeforeActing):
    def reset(self, seed):
        return super().reset(seed + hash("a word") % 1000)

class Leaving(VerifyBeforeActing):
    def grade(self):
        raise SystemExit(0)

class Chatty(VerifyBeforeActing):
    def reset(self, seed):
        print("hello")
        return super().reset(seed)
"""


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """Installed environments that misbehave."""
    (tmp_path / "strange.py").write_text(STRANGE)
    info = tmp_path / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    points = [f"{name.lower()} = strange:{name}" for name in ("Hanging", "Crashing", "Hashing", "Leaving", "Chatty")]
    (info / "entry_points.txt").write_text("\n".join([f"[{ENVIRONMENTS.group}]", *points]))
    monkeypatch.syspath_prepend(str(tmp_path))


def run(entry_point, seconds=60.0):
    return run_isolated(Design(entry_point=entry_point, parameters={}), BRIEF, range(4), seconds)


def test_a_good_design_passes_every_gate():
    checks = run_isolated(FamilyPractice(FAMILIES["compute_over_values"]).designs[0], BRIEF, range(8), 60.0)
    assert [check for check in checks if not check.passed] == []
    assert len({check.name for check in checks}) == len(checks) == 20


def test_a_hang_ends_at_the_time_limit(strange):
    start = time.monotonic()
    (check,) = run("hanging", seconds=3.0)
    assert (check.name, check.passed) == ("runs", False)
    assert "not through after 3 s" in check.detail
    assert time.monotonic() - start < 20.0


def test_what_it_raises_is_told(strange):
    (check,) = run("crashing")
    assert not check.passed
    assert "KeyError: 'no grade today!" in check.detail and len(check.detail) <= DETAIL_CHARACTERS


def test_dependence_on_hashes_is_found_out(strange):
    checks = {check.name: check.passed for check in run("hashing")}
    assert checks["deterministic"]
    assert not checks["same_in_two_processes"]


def test_leaving_is_no_way_to_pass(strange):
    (check,) = run("leaving")
    assert (check.name, check.passed) == ("runs", False)
    assert "may not exit" in check.detail


def test_printing_does_no_harm(strange):
    assert all(check.passed for check in run("chatty"))


def test_code_outside_the_package_is_refused_unrun(strange):
    (check,) = run("strange:Chatty")
    assert (check.name, check.passed) == ("entry_point", False)
    assert "which only a sandbox may run" in check.detail
