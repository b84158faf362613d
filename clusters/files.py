"""The rendered files of a target, shell templates, and YAML."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Environment(  # shell, not HTML: the filter q quotes values
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
)
_TEMPLATES.filters["q"] = lambda value: shlex.quote(str(value))


class _Dumper(yaml.SafeDumper):
    """Writes scripts as block scalars."""


_Dumper.add_representer(
    str,
    lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None),
)


def to_yaml(documents: Sequence[Any]) -> str:
    """One YAML file of ``documents``."""
    return str(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=120))


@dataclass(frozen=True)
class Rendered:
    """Files of a target, by name below ``directory``, and the next commands of the user."""

    directory: str
    files: dict[str, str]
    commands: list[str]


def text(template: str, **values: Any) -> str:
    """``template`` filled with ``values``. Raises for an unknown name."""
    return _TEMPLATES.get_template(template).render(**values)
