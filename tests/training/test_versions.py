import pytest

from trace_jax.errors import UserError
from trace_jax.training.versions import version_of, versioned


@pytest.mark.parametrize("name", ["a", "team@home", "x@1"])
def test_a_version_is_read_back(name):
    assert version_of(versioned(name, 17)) == 17


def test_the_base_has_learnt_nothing_and_other_names_are_refused():
    assert version_of(None) == 0
    for name in ("tools", "tools@", "tools@v2", "@"):
        with pytest.raises(UserError, match=f"'{name}' names no version"):
            version_of(name)
