"""Hypothesis strategies that draw every kind of record, with the awkward values that files must survive.

They follow the fields of the models, so that a new field is tested from its first day; only rules that span fields are
written down here.
"""

import functools
import types
from collections.abc import Iterable
from enum import EnumType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from trace_jax.contract import adapter, capability, environment, evaluation, llm, routing, trajectory
from trace_jax.contract.digest import Checksum
from trace_jax.contract.files import JsonLinesWriter
from trace_jax.contract.record import Part, Record
from trace_jax.contract.schemas import RECORDS
from trace_jax.contract.storage import PathLike

# Everything that UTF-8 can hold: quotes, newlines, NUL, line separators, emoji; lone surrogates are refused (tested).
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12) | st.sampled_from(["\n", "\u2028", '"\\', "é🙂"])
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
digests = st.integers(0, 2**256 - 1).map(lambda number: f"{number:064x}")
NAME, SHA256 = r"^[a-z][a-z0-9_]*$", "^[0-9a-f]{64}$"
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


def of_type(kind: Any, metadata: tuple = ()) -> st.SearchStrategy:
    """Legal values of an annotation under pydantic's constraints."""
    arguments = get_args(kind)
    low = next((limit.ge for limit in metadata if isinstance(limit, Ge)), None)
    high = next((limit.le for limit in metadata if isinstance(limit, Le)), None)
    if hasattr(kind, "__metadata__"):
        return of_type(arguments[0], kind.__metadata__)
    pattern = next((found for limit in metadata if (found := getattr(limit, "pattern", None))), None)
    if pattern is not None:
        return {NAME: names, SHA256: digests}[pattern]
    if isinstance(kind, EnumType) or get_origin(kind) is Literal:
        return st.sampled_from(kind if isinstance(kind, EnumType) else arguments)
    if get_origin(kind) in (Union, types.UnionType):
        return st.one_of(*(of_type(option, metadata) for option in arguments))
    if get_origin(kind) is tuple:
        size = next((limit.max_length for limit in metadata if isinstance(limit, MaxLen)), 2)
        return st.lists(of_type(arguments[0]), max_size=min(size, 2)).map(tuple)
    if get_origin(kind) is dict:
        return st.dictionaries(text, of_type(arguments[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, Part):
        return of_model(kind)
    return {
        type(None): st.none(),
        bool: st.booleans(),
        int: st.integers(-(2**63) if low is None else low, 2**63 if high is None else high),
        float: st.floats(low, high, allow_nan=False, allow_infinity=False),
        str: text,
        Any: json_values,
    }[kind]


def of_field(field: FieldInfo) -> st.SearchStrategy:
    """Legal values of a model's field."""
    return of_type(field.annotation, tuple(field.metadata))


@functools.cache
def of_model(model: type[Part]) -> st.SearchStrategy[Part]:
    """Legal records or parts. Strategies are dear to make: one for each model."""
    fields = {name: of_field(field) for name, field in model.model_fields.items() if name != "schema_version"}
    return _legal(model, fields)


@st.composite
def _legal(draw: st.DrawFn, model: type[Part], fields: dict[str, st.SearchStrategy]) -> Part:
    values = {name: draw(field) for name, field in fields.items()}
    if model is trajectory.Segment:
        values["logprobs"] = tuple(draw(of_type(float)) for _ in values["tokens"]) if values["trained"] else ()
        values["adapter"] = values["adapter"] if values["trained"] else None
    elif model is trajectory.Trajectory:
        graded = draw(st.booleans())
        values["reward"], values["error"] = (draw(st.floats(0, 1)), None) if graded else (None, draw(text))
    elif model is capability.SelectedCapability:
        values["reason"] = draw(text.filter(bool)) if values["status"] is capability.Status.FAILED else ""
    elif model is routing.RouteDecision:
        raw = draw(st.dictionaries(text, st.floats(0.01, 1), max_size=3))
        values["weights"] = {name: weight / sum(raw.values()) for name, weight in raw.items()}
        values["adapters"] = {} if values["undecided"] else values["adapters"]
    elif model is llm.ModelCall:
        values["answer"], values["error"] = (draw(text), None) if draw(st.booleans()) else (None, draw(text))
    elif model is routing.RouteTable:
        values["gate_sha256"] = None if values["gate"] is None else draw(digests)
    elif model is environment.Design:
        values["entry_point"] = f"sandbox:{draw(names)}" if values["source"] is not None else draw(names)
    elif model is environment.EnvironmentManifest:
        del values["design_sha256"]  # it follows from the design
        source = values["design"].source
        author = draw(of_model(environment.Authorship)) if source is not None else None
        digest = None if source is None else environment.source_sha256(source)
        values["written_by"] = author and author.model_copy(update={"source_sha256": digest})
    elif model is adapter.AdapterManifest:
        values["files"] = {name: draw(of_model(Checksum)) for name in adapter.PEFT_FILES}
    elif model is evaluation.EvaluationReport:
        values["tasks"] = tasks = tuple(dict.fromkeys(values["tasks"]))
        rewards = st.fixed_dictionaries({task: of_type(tuple[float | None, ...]) for task in tasks})
        values["methods"] = tuple(method.model_copy(update={"rewards": draw(rewards)}) for method in values["methods"])
        if (nothing := values["do_nothing"]) is not None:
            values["do_nothing"] = nothing.model_copy(update={"rewards": draw(rewards)})
    return model(**values)


STRATEGIES: dict[str, st.SearchStrategy] = {name: of_model(model) for name, model in RECORDS.items()}


def append(path: PathLike, records: Iterable[Record]) -> None:
    """Append ``records`` to a log that is opened and closed for it, as by a program that was started again."""
    with JsonLinesWriter(path) as writer:
        writer.extend(records)
