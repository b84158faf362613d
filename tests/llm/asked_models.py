"""A form, a prompt and a model that asks a scripted endpoint: what the tests of structured answers share."""

import asyncio
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from scripted_endpoint import Endpoint, said

from trace_jax.contract.files import read_records
from trace_jax.contract.llm import ModelCall
from trace_jax.llm import LanguageModel, LanguageModelSettings, Prompt, StructuredModel


class Verdict(BaseModel):
    """The form of the tests."""

    name: str
    score: int = Field(ge=0, le=10)


GOOD = {"name": "a", "score": 3}


def good(score: int = 3, **more: Any) -> dict[str, Any]:
    return said(json.dumps({"name": "a", "score": score}), **more)


def hello(text: str = "hello") -> Prompt:
    return Prompt("hello", "1-00000000", ({"role": "system", "content": "s"}, {"role": "user", "content": text}))


def model_of(
    served: Endpoint, record: Path | None = None, *, replay: bool = False, **changes: object
) -> StructuredModel:
    quick = {"url": served.url, "model": "m", "retry_seconds": 0.02, "attempts": 3, "api_key_variable": "SOME_KEY"}
    settings = LanguageModelSettings(**{**quick, **changes})  # type: ignore[arg-type]
    return StructuredModel(LanguageModel(settings), record=record, replay=replay)


def ask(model: StructuredModel, text: str = "hello", seed: int = 1, **more: Any) -> Verdict:
    return asyncio.run(model.ask(hello(text), Verdict, **{"stage": "judge", "seed": seed, **more}))


def on_file(record: Path) -> list[ModelCall]:
    return list(read_records(record, ModelCall))
