"""The designer that asks a language model for a module on the kit."""

import asyncio
from collections.abc import Mapping, Sequence

from etils import epath

from trace_jax.contract.environment import Attempt, Authorship, Design, Verdict, source_sha256
from trace_jax.contract.files import read_records
from trace_jax.contract.llm import ModelCall
from trace_jax.contract.storage import PathLike
from trace_jax.errors import UserError
from trace_jax.llm.errors import AnswerRefused, EndpointRefused, LLMError, PromptTooLong
from trace_jax.llm.model import LanguageModel
from trace_jax.llm.prompts import Prompt, prompt
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.llm.structured import StructuredModel
from trace_jax.synthesis.calibration import Window
from trace_jax.synthesis.designer import Brief, DesignError, NoDesign
from trace_jax.synthesis.llm.difficulty import next_setting
from trace_jax.synthesis.llm.form import Setting, WrittenModule, faults
from trace_jax.synthesis.llm.spent import authorship
from trace_jax.synthesis.llm.values import prompt_values

PACKAGE = "trace_jax.synthesis.llm"
STAGE = "synthesis"
_CANDIDATES = 1000  # more than there may be: each candidate and round has a seed of its own


class LanguageModelDesigner:
    """Asks ``model`` for modules. A module that is too easy or too hard gets other settings before it is rewritten.

    ``seed`` is the run's. The same attempts always make the same requests. ``record`` is the file in which ``model``
    keeps them.
    """

    name = "llm"

    def __init__(
        self, model: StructuredModel, *, record: PathLike | None, seed: int, window: Window | None = None
    ) -> None:
        self._model, self._record, self._seed, self._window = model, record, seed, window or Window()
        self._written: dict[tuple[int, str], WrittenModule] = {}  # by candidate, and digest of the source

    def design(self, brief: Brief, attempts: tuple[Attempt, ...]) -> Design:
        """The next design of one candidate. Raises NoDesign if the answer cannot be used, and LLMError without one."""
        found = self.design_each(brief, {0: attempts})[0]
        if isinstance(found, Exception):
            raise found
        return found

    def design_each(
        self, brief: Brief, candidates: Mapping[int, tuple[Attempt, ...]]
    ) -> dict[int, Design | DesignError | NoDesign]:
        """The next design of each candidate; the requests are in flight together.

        Raises LLMError if no model answers, once all answers that did come are on file.
        """
        return asyncio.run(self._design_each(brief, candidates))

    def authorship(self, capability: str, design: Design) -> Authorship:
        """How ``design`` was written, by the calls on file for ``capability``."""
        assert design.source is not None
        return authorship(self.calls(capability), source_sha256(design.source))

    def calls(self, capability: str) -> list[ModelCall]:
        """The requests for ``capability`` that are on file."""
        if self._record is None or not epath.Path(self._record).exists():
            return []
        return [call for call in read_records(self._record, ModelCall) if call.stage == stage_of(capability)]

    async def _design_each(
        self, brief: Brief, candidates: Mapping[int, tuple[Attempt, ...]]
    ) -> dict[int, Design | DesignError | NoDesign]:
        found = await asyncio.gather(
            *(self._next(brief, number, attempts) for number, attempts in candidates.items()), return_exceptions=True
        )
        raised = [each for each in found if isinstance(each, BaseException) and not isinstance(each, NoDesign)]
        if raised:  # what only a user can mend comes first, then bugs
            raise min(raised, key=lambda error: isinstance(error, LLMError) and not isinstance(error, EndpointRefused))
        return dict(zip(candidates, found, strict=True))  # type: ignore[arg-type]

    async def _next(self, brief: Brief, candidate: int, attempts: Sequence[Attempt]) -> Design:
        if (changed := self._other_setting(brief, candidate, attempts)) is not None:
            return changed
        try:
            written = await self._model.ask(
                self._prompt(brief, attempts),
                WrittenModule,
                stage=stage_of(brief.capability.name),
                seed=(self._seed * _CANDIDATES + candidate) * _CANDIDATES + len(attempts),
                check=lambda answer: faults(answer, brief.tools),
            )
        except AnswerRefused as refused:
            raise NoDesign(" ".join(refused.faults) or str(refused)) from refused
        except PromptTooLong as error:
            raise UserError(f"{error}: the designer needs a model with a longer context") from error
        design = written.design(written.first, brief.tools)
        if any(attempt.design == design for attempt in attempts):
            raise NoDesign("This module with these first values was tried before, and refused. Write another one.")
        assert design.source is not None
        self._written[candidate, source_sha256(design.source)] = written
        return design

    def _other_setting(self, brief: Brief, candidate: int, attempts: Sequence[Attempt]) -> Design | None:
        """The last module at another difficulty, if that may help."""
        last = attempts[-1].design if attempts else None
        if last is None or last.source is None:
            return None
        written = self._written.get((candidate, source_sha256(last.source)))
        if written is None:
            return None  # not of this designer's making
        tried: dict[Setting, Verdict] = {}
        for attempt in attempts:
            setting = None if attempt.design is None else written.setting(attempt.design, brief.tools)
            if setting is not None and attempt.verdict is not None:
                tried[setting] = attempt.verdict
        at = written.setting(last, brief.tools)
        following = None if at not in tried else next_setting(written.knobs, tried, at)
        return None if following is None else written.design(following, brief.tools)

    def _prompt(self, brief: Brief, attempts: Sequence[Attempt]) -> Prompt:
        return prompt(PACKAGE, "design", **prompt_values(brief, attempts, self._window))


def open_designer(
    settings: LanguageModelSettings, *, record: PathLike | None, seed: int, earlier: Sequence[PathLike] = ()
) -> LanguageModelDesigner:
    """The designer of the model that ``settings`` name. Raises UserError if they name none.

    The calls in ``earlier`` count towards the budget, too.
    """
    model = StructuredModel(LanguageModel(settings), record=record, earlier=earlier, replay=settings.replay)
    return LanguageModelDesigner(model, record=record, seed=seed)


def stage_of(capability: str) -> str:
    """The stage under which the calls for a capability are on file."""
    return f"{STAGE}/{capability}"
