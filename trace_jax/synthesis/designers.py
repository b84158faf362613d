"""Designers by name."""

from collections.abc import Sequence

from trace_jax.contract.storage import PathLike
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.registry import Registry
from trace_jax.synthesis.designer import Designer
from trace_jax.synthesis.settings import SynthesisSettings
from trace_jax.synthesis.stage import check_candidates

LLM = "llm"
CALLS = "model_calls.jsonl"  # the requests of a language model, in the directory of the environments

DESIGNERS = Registry(
    "designer",
    "trace_jax.designers",
    {
        LLM: "trace_jax.synthesis.llm.designer:LanguageModelDesigner",
        "rules": "trace_jax.synthesis.rules:RulesDesigner",
    },
    ("design",),
)


def make_designer(
    settings: SynthesisSettings,
    *,
    llm: LanguageModelSettings,
    record: PathLike | None,
    seed: int,
    earlier: Sequence[PathLike] = (),
) -> Designer:
    """The designer that ``settings`` name. A language model is that of ``llm``; it keeps its requests in ``record``.

    Requests of other stages, in the files ``earlier``, count towards its budget.

    Raises UserError, with the known names, if there is none, if ``llm`` names no endpoint, and if several candidates
    are wanted of a designer that makes one design at a time.
    """
    if settings.designer == LLM:
        from trace_jax.synthesis.llm.designer import open_designer

        designer: Designer = open_designer(llm, record=record, seed=seed, earlier=earlier)
    else:
        designer = DESIGNERS.make(settings.designer)
    check_candidates(designer, settings)
    return designer
