"""The form of the designer's answer: one Python module, its environment class, and the knobs of its difficulty."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trace_jax.contract.environment import SANDBOX, Design
from trace_jax.contract.trajectory import Tool
from trace_jax.synthesis.llm.module_check import MOST_CHARACTERS, module_faults

MOST_KNOBS, MOST_VALUES, MOST_TOOLS = 4, 8, 12
TOOLS = "TARGET_TOOLS"  # the name that the first line of a source defines

Setting = tuple[int, ...]  # the number of the value of each knob, from 0 for the easiest


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Knob(_Form):
    """A parameter of the class that makes its episodes easier or harder."""

    parameter: str = Field(description="name of the keyword argument of the class")
    meaning: str = Field(description="what it changes, in a few words", max_length=200)
    values: list[int] = Field(
        description="its values from the easiest to the hardest", min_length=2, max_length=MOST_VALUES
    )
    first: int = Field(description="the one of these values to begin with")


class WrittenModule(_Form):
    """The answer to ``design``."""

    plan: str = Field(
        description="in a few sentences: the situation, the tempting wrong path, and what the grader looks at",
        max_length=4000,
    )
    class_name: str = Field(description="name of the environment class in the module", max_length=80)
    tools: list[str] = Field(
        description="names of the target's tools that it offers", min_length=1, max_length=MOST_TOOLS
    )
    knobs: list[Knob] = Field(description="the parameters that set the difficulty", min_length=1, max_length=MOST_KNOBS)
    module: str = Field(description="the whole Python module, from line 2 on", max_length=MOST_CHARACTERS)

    @property
    def first(self) -> Setting:
        """The setting of the knobs to begin with. The form has no faults."""
        return tuple(knob.values.index(knob.first) for knob in self.knobs)

    def source(self, offered: Sequence[Tool]) -> str:
        """The module, after a line that defines the tools as the target words them."""
        chosen = [tool.offered() for tool in offered if tool.name in self.tools]
        return f"{TOOLS} = {json.dumps(chosen)!r}\n{self.module}"

    def design(self, setting: Setting, offered: Sequence[Tool]) -> Design:
        """The design at a setting of the knobs. ``offered`` are the target's tools."""
        parameters = {knob.parameter: knob.values[at] for knob, at in zip(self.knobs, setting, strict=True)}
        return Design(entry_point=f"{SANDBOX}{self.class_name}", parameters=parameters, source=self.source(offered))

    def setting(self, design: Design, offered: Sequence[Tool]) -> Setting | None:
        """The setting of the knobs at which this module is ``design``; None if it is another one."""
        values: list[Any] = [design.parameters.get(knob.parameter) for knob in self.knobs]
        if any(value not in knob.values for value, knob in zip(values, self.knobs, strict=True)):
            return None
        found = tuple(knob.values.index(value) for value, knob in zip(values, self.knobs, strict=True))
        return found if self.design(found, offered) == design else None


def without_tools(source: str) -> str:
    """The module in a source, as the model wrote it."""
    return source.partition("\n")[2]


def faults(written: WrittenModule, offered: Sequence[Tool]) -> list[str]:
    """What is wrong with an answer that fits the form, one sentence each. The module is read, and never run."""
    known = [tool.name for tool in offered]
    strange = [name for name in written.tools if name not in known]
    found = [f"Tool {name!r} is none of the target's: these are {', '.join(known)}." for name in strange]
    found += [fault for knob in written.knobs for fault in _knob_faults(knob)]
    for kind, names in (("tool", written.tools), ("knob", [knob.parameter for knob in written.knobs])):
        found += [f"The {kind} {name!r} is listed twice." for name in dict.fromkeys(names) if names.count(name) > 1]
    parameters = [knob.parameter for knob in written.knobs]
    return [*found, *module_faults(written.source(offered), written.class_name, parameters)]


def _knob_faults(knob: Knob) -> list[str]:
    found = [] if knob.parameter.isidentifier() else [f"Knob {knob.parameter!r} is no name of a parameter."]
    if len(set(knob.values)) < len(knob.values):
        found.append(f"Knob {knob.parameter!r} lists a value twice: {knob.values}.")
    if knob.first not in knob.values:
        found.append(f"Knob {knob.parameter!r} begins with {knob.first}, which is none of its values {knob.values}.")
    return found
