"""Prompts are Jinja templates in the package that uses them: ``PACKAGE/prompts/NAME.jinja``.

    {# version 2: says what a label means #}
    {% block system %}You label the conversations of an agent.{% endblock %}
    {% block user %}Label this conversation:
    {{ text | data }}{% endblock %}

    prompt("trace_jax.analysis.llm", "label", text=text).messages  # a system message and a user message

A name that the template needs and nobody gives is an error. ``data`` puts text of others between delimiters that do not
occur in it, and breaks up the control tokens of chat templates.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from trace_jax.contract.reading import storable

if TYPE_CHECKING:
    from jinja2 import Environment, Template

ROLES = ("system", "user")
_VERSION = re.compile(r"\{#-? version (\d+)\b[^\n]*#\}\n")
_CONTROL = re.compile(r"<(\|[^<>|\s]{1,40}\|)>|<(/?s|/?think|(?:start|end)_of_turn)>|\[(/?INST)\]")
_NONCE = 16  # hex digits


@dataclass(frozen=True)
class Prompt:
    """A rendered template.

    Attributes:
        name: of the template.
        version: the number in its first line and the first 8 hex digits of its SHA-256, such as ``2-1f0c33ab``.
        messages: OpenAI's message objects.
    """

    name: str
    version: str
    messages: tuple[dict[str, str], ...]


def prompt(package: str, name: str, /, **values: Any) -> Prompt:
    """The template ``name`` of ``package``, rendered with ``values``. Half a surrogate pair becomes U+FFFD."""
    template = _template(package, name)
    context = template.new_context(values)
    messages = []
    for role in ROLES:
        if role in template.blocks:
            text, _ = storable("".join(template.blocks[role](context)))
            messages.append({"role": role, "content": text.strip()})
    return Prompt(name, version(package, name), tuple(messages))


def version(package: str, name: str) -> str:
    """The version of the template ``name`` of ``package``."""
    source = _source(package, name)
    number = _VERSION.match(source)
    if number is None:
        raise ValueError(f"{package}: prompts/{name}.jinja does not begin with {{# version NUMBER #}}")
    return f"{number.group(1)}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def print_prompts(packages: Iterable[str]) -> None:
    """Print every template of ``packages`` with its version, as it stands in the file."""
    for package in packages:
        for name in sorted(_names(package)):
            print(f"=== {package}: {name}, version {version(package, name)} ===\n{_source(package, name)}")


def data(text: object) -> str:
    """``text`` between delimiters which it does not contain, and which follow from the text alone.

    A control token such as ``<|im_end|>``, which a server would read as one inside a message, gets spaces: ``< |im_end|
    >``.
    """
    content, _ = storable(str(text))
    content = _CONTROL.sub(_broken_up, content)
    digest = hashlib.sha256(content.encode()).hexdigest()
    while digest[:_NONCE] in content:
        digest = hashlib.sha256(f"{digest}{content}".encode()).hexdigest()
    name = f"data-{digest[:_NONCE]}"
    return f"<{name}>\n{content}\n</{name}>"


def _broken_up(found: re.Match[str]) -> str:
    whole = found.group()
    return f"{whole[0]} {whole[1:-1]} {whole[-1]}"


def _names(package: str) -> list[str]:
    files = (resources.files(package) / "prompts").iterdir()
    return [file.name.removesuffix(".jinja") for file in files if file.name.endswith(".jinja")]


@cache
def _source(package: str, name: str) -> str:
    return (resources.files(package) / "prompts" / f"{name}.jinja").read_text(encoding="utf-8")


@cache
def _template(package: str, name: str) -> "Template":
    return _environment().from_string(_source(package, name))


@cache
def _environment() -> "Environment":
    """Templates are whole in themselves: there is no loader, so none includes another one."""
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data"] = data
    return environment
