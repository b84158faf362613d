"""A short reward search, for tests in which it has nothing to find: the whole one is two thirds of the gates' time."""

import pytest

from trace_jax.synthesis import search_gates


@pytest.fixture
def short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search gives up after a tenth of its programs, in this process alone."""
    monkeypatch.setattr(search_gates, "PROGRAMS", search_gates.PROGRAMS // 10)
