"""What a dry run can say of a language model without spending a token."""

import os

from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError
from trace_jax.llm.model import LanguageModel
from trace_jax.llm.record import CallRecord

_SHOWN = 8  # names of models


async def check_model(model: LanguageModel, record: PathLike | None, *, replay: bool = False) -> str:
    """One line: where ``model`` is, whether the endpoint has it, what ``record`` holds and what the budget leaves.

    Raises UserError if the endpoint lists its models and this one is not among them, or if a replay has no record, and
    LLMError if the endpoint cannot be reached or refuses the key.
    """
    settings = model.settings
    calls = list(CallRecord(record))
    spent = sum(call.charged_tokens for call in calls)
    kept = f"{len(calls)} calls on file, which used {spent} tokens"
    if replay:
        if not calls:
            where = "no file of calls" if record is None else f"{os.fspath(record)}: holds no call"
            raise UserError(f"{where}: unset llm.replay, or name the run that holds them")
        return f"model {settings.model!r}, replayed without an endpoint: {kept}"
    names = await model.models()
    if names is not None and settings.model not in names:
        known = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
        raise UserError(f"{settings.url} has no model {settings.model!r}: set llm.model to one of its own ({known})")
    listed = "offered" if names is not None else "not checked, since the endpoint lists no models"
    return f"{model.where}: {listed}; {kept}; {_left(settings.budget_tokens, spent)}"


def _left(budget: int | None, spent: int) -> str:
    return "no budget of tokens" if budget is None else f"{max(0, budget - spent)} of {budget} tokens are left"
