"""Answers to an analyst's requests that a reader wrote by hand, from reading the episodes."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from trace_jax.contract.capability import Label
from trace_jax.contract.files import decode
from trace_jax.contract.reading import read_bytes
from trace_jax.contract.record import Part, Record
from trace_jax.contract.storage import PathLike
from trace_jax.contract.trajectory import Message, Trajectory
from trace_jax.errors import UserError

Answer = dict[str, Any]

_PAGE = re.compile(r"^(T\d+) \((.*?)\): (?:passed|FAILED)", re.MULTILINE)
_PROPOSAL = re.compile(r"^(A\d+): (\w+)$", re.MULTILINE)
_ENTRY = re.compile(r"^- (\w+): ", re.MULTILINE)
_POLICY = "The agent's policy"  # what follows the dictionary in a request for labels
_WORDS, _CHARACTERS = 8, 200  # of a quote
_QUOTES = 4


class EpisodeJudgement(Part):
    """One episode: what is lacking (message, and why), and what there was no occasion for. All else is present."""

    LACKING: dict[str, tuple[int, str]] = Field(default_factory=dict)
    NA: tuple[str, ...] = ()


class Judgements(Record):
    """What a reader wrote about the episodes of one domain, in several runs of different order.

    ``capabilities`` are the dictionary (name → description); ``runs`` the judgements by episode.
    """

    model: str
    capabilities: dict[str, str]
    runs: tuple[dict[str, EpisodeJudgement], ...]

    @property
    def episodes(self) -> frozenset[str]:
        """The ids of the episodes that were read."""
        return frozenset(self.runs[0])


def read_judgements(path: PathLike) -> Judgements:
    """The judgements in the file ``path``. Raises UserError if it holds none, or runs over different episodes."""
    found = decode(str(path), read_bytes(path, "give a file of assets/recorded_analysis"), Judgements)
    if not found.runs or any(set(run) != found.episodes for run in found.runs):
        raise UserError(f"{path}: its runs are not over the same episodes: restore the file")
    return found


class Reader:
    """Answers the requests of ``LanguageModelAnalyst`` from ``judgements``.

    Label runs take the runs of the judgements in the order in which their seeds are first seen, so ask one request
    after the other.
    """

    def __init__(self, judgements: Judgements, trajectories: Mapping[str, Trajectory]) -> None:
        self._judgements, self._trajectories = judgements, trajectories
        self._seeds: list[int] = []

    def answer(self, form: str, seed: int, text: str) -> Answer:
        """The answer, of the ``form`` wanted, to the user's message ``text``."""
        if form == "Proposals":
            return {"capabilities": self._proposals(text)}
        if form == "Dictionary":
            return {"capabilities": list(self._merged(text))}
        if seed not in self._seeds:
            self._seeds.append(seed)
        return {"episodes": list(self._labels(text, self._seeds.index(seed)))}

    def _proposals(self, text: str) -> list[Answer]:
        """The capabilities that at least two of the episodes shown lack, with quotes; the most frequent ones first."""
        shown = [(label, key) for label, key in _PAGE.findall(text) if not self._trajectories[key].passed]
        found = []
        for name, description in self._judgements.capabilities.items():
            quotes = []
            for label, key in shown:
                lapse = self._judgements.runs[0][key].LACKING.get(name)
                words = lapse and _first_words(self._trajectories[key].messages[lapse[0]])
                if lapse and words:
                    quotes.append({"episode": label, "message": lapse[0], "quote": words})
            if len(quotes) > 1:
                found.append({"name": name, "description": description, "evidence": quotes})
        found.sort(key=lambda proposal: -len(proposal["evidence"]))
        return [{**proposal, "evidence": proposal["evidence"][:_QUOTES]} for proposal in found]

    def _merged(self, text: str) -> Iterator[Answer]:
        sources: dict[str, list[str]] = {}
        for label, name in _PROPOSAL.findall(text):
            sources.setdefault(name, []).append(label)
        for name, labels in sources.items():
            yield {"name": name, "description": self._judgements.capabilities[name], "sources": labels}

    def _labels(self, text: str, run: int) -> Iterator[Answer]:
        names = _ENTRY.findall(text.split(_POLICY)[0])
        for label, key in _PAGE.findall(text):
            judged = self._judgements.runs[run][key]
            yield {"episode": label, "labels": [_judgement(name, judged) for name in names]}


def _judgement(name: str, judged: EpisodeJudgement) -> Answer:
    lapse = judged.LACKING.get(name)
    if lapse:
        return {"capability": name, "label": Label.LACKING, "evidence": f"[{lapse[0]}] {lapse[1]}"}
    return {"capability": name, "label": Label.NA if name in judged.NA else Label.PRESENT, "evidence": ""}


def _first_words(message: Message) -> str:
    """The first words of a message, or of the arguments of its call; empty if they are too few to be evidence."""
    calls = [call.raw_arguments or json.dumps(call.arguments) for call in message.tool_calls]
    words = " ".join((message.content or "".join(calls)).split()[:_WORDS])[:_CHARACTERS]
    return words if len(re.findall(r"[^\W_]+", words)) > 2 else ""
