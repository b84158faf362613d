"""The forms that answers of the analyst's model have. The prompts beside this file say the same in words.

Episodes go by the labels of their pages (T1, T2, …), messages by the numbers that stand in brackets there.
"""

from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

MOST_CAPABILITIES = 10
FEWEST_EXAMPLES, MOST_EXAMPLES = 2, 4
_LONGEST_EVIDENCE = 200  # characters; longer texts are cut, not refused


class Form(BaseModel):
    """An answer: closed to unknown fields."""

    model_config = ConfigDict(extra="forbid")


class Quote(Form):
    """A message that shows something."""

    episode: str = Field(description="label of the episode's page, such as T3")
    message: int = Field(description="number of the message, as it stands in brackets on the page", ge=0)
    quote: str = Field(description="at least three words copied from that message, letter by letter", max_length=300)


class Proposal(Form):
    """A capability that the agent lacks."""

    name: str = Field(description="snake_case", pattern=r"^[a-z][a-z0-9_]{2,59}$")
    description: str = Field(
        description="two or three sentences: when it is needed, what shows it, what counts as lacking it",
        min_length=40,
        max_length=900,
    )
    evidence: list[Quote] = Field(
        description="messages of two to four episodes in which it is lacking",
        min_length=FEWEST_EXAMPLES,
        max_length=2 * MOST_EXAMPLES,
    )


class Proposals(Form):
    """The answer to ``discover``."""

    capabilities: list[Proposal] = Field(max_length=MOST_CAPABILITIES)


class MergedCapability(Form):
    """A capability of the dictionary, made of one or more proposals."""

    name: str = Field(description="snake_case", pattern=r"^[a-z][a-z0-9_]{2,59}$")
    description: str = Field(
        description="two or three sentences: when it is needed, what shows it, what counts as lacking it",
        min_length=40,
        max_length=900,
    )
    sources: list[str] = Field(description="labels of the proposals that it stands for, such as A2", min_length=1)


class Dictionary(Form):
    """The answer to ``merge``."""

    capabilities: list[MergedCapability] = Field(max_length=MOST_CAPABILITIES)


class Judgement(Form):
    """The label of one capability in one episode."""

    capability: str = Field(description="name in the dictionary")
    label: Literal["NA", "PRESENT", "LACKING"]
    evidence: str = Field(
        description="LACKING: number of the message and a few words; otherwise a number, or empty",
        json_schema_extra={"maxLength": _LONGEST_EVIDENCE},
    )


class EpisodeLabels(Form):
    """All labels of one episode."""

    episode: str = Field(description="label of the episode's page, such as T3")
    labels: list[Judgement]


class Labels(Form):
    """The answer to ``label``: each episode once, and in it each capability of the dictionary once."""

    episodes: list[EpisodeLabels]


@cache
def labels_of(episodes: tuple[str, ...], capabilities: tuple[str, ...]) -> type[Labels]:
    """``Labels`` whose JSON Schema names the episodes and capabilities, for servers that hold answers to a schema.

    Other names still make a valid form: they are found and named when the pairs are counted.
    """

    def among(form: type[Form], name: str, values: tuple[str, ...]) -> Any:
        field = form.model_fields[name]
        return str, Field(description=field.description, json_schema_extra={"enum": list(values)})

    judgement = create_model("Judgement", __base__=Judgement, capability=among(Judgement, "capability", capabilities))
    episode = create_model(
        "EpisodeLabels",
        __base__=EpisodeLabels,
        episode=among(EpisodeLabels, "episode", episodes),
        labels=(list[judgement], Field(max_length=None)),  # type: ignore[valid-type]
    )
    return create_model("Labels", __base__=Labels, episodes=(list[episode], ...))  # type: ignore[valid-type]
