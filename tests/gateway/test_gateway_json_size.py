"""The number of values in a JSON text is bounded without parsing it, and never underestimated."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_jax.gateway.errors import ApiError
from trace_jax.gateway.json_size import MAX_VALUES, count_values
from trace_jax.gateway.request import CHAT, read_request

strings = st.text(st.sampled_from('ab"\\,[{\n')) | st.text(max_size=5)
values = st.recursive(
    st.none() | st.integers() | strings,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(strings, inner, max_size=5),
)


def number_of_values(value) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(number_of_values, items))


def containers(value) -> int:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + sum(map(containers, items))


@given(values)
def test_it_is_exact_but_for_empty_containers(value):
    text = json.dumps(value).encode()
    exact = number_of_values(value)
    assert exact <= count_values(text, 10_000) or count_values(text, 10_000) > 10_000
    counted = count_values(text, max(exact + containers(value), 1))  # too few for a rough count: strings are left out
    assert exact <= counted <= exact + containers(value)


@given(st.binary(max_size=40).map(lambda b: b.replace(b"x", b'"').replace(b"y", b"\\")))
def test_anything_has_a_bound(text):
    assert count_values(text, 3) >= 1


@pytest.mark.parametrize("item", [b"0", b"[]", b"{}", b'""', b'{"a":0}', b"[[[]]]"])
def test_a_body_of_too_many_values_is_refused(item):
    body = b'{"model":"m","x":[' + b",".join([item] * (MAX_VALUES + 1)) + b"]}"
    with pytest.raises(ApiError, match=f"more than {MAX_VALUES} JSON values") as refusal:
        read_request(CHAT, body, {})
    assert refusal.value.status == 400


@pytest.mark.parametrize("text", ["a, b [c] {d}; ", '\\"', "\\\\", '\\",'])
def test_a_long_text_is_one_value(text):
    body = json.dumps({"model": "m", "prompt": json.loads(f'"{text}"') * MAX_VALUES}).encode()
    assert read_request(CHAT, body, {}).model == "m"
