"""A model's tokenizer, chat template and end tokens, read by ``transformers`` from a Hugging Face directory."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from trace_jax.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
TEMPLATE, PROCESSOR_TEMPLATE = "chat_template.jinja", "chat_template.json"
_OTHER_SETTINGS = ("special_tokens_map.json", "added_tokens.json")
_REMEDY = "put the model's own file there again"


def read_tokenizer(directory: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer of ``tokenizer.json`` with the chat templates that belong to it.

    ``tokenizer.json`` is taken as it stands: the classes that ``AutoTokenizer`` chooses build a part of it anew. The
    templates are those that ``transformers`` finds for a tokenizer, or else that of ``chat_template.json``, which older
    processors have. Raises UserError for a file that is missing or damaged.
    """
    path = directory / TOKENIZER
    if not path.is_file():
        raise UserError(f"{path} is missing: put the tokenizer that the model was trained with there")
    quiet_transformers()
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
            os.fspath(directory), local_files_only=True
        )
    except Exception as error:  # the libraries raise nothing narrower
        raise _damaged(_damaged_file(directory), error) from None
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _processor_template(directory / PROCESSOR_TEMPLATE)
    return tokenizer


def end_token_ids(directory: Path, tokenizer: "PreTrainedTokenizerFast") -> frozenset[int]:
    """All tokens with which the model ends a text: those of its generation settings, configuration and tokenizer.

    Inference servers stop at any of them. Raises UserError for a file that is damaged, and for an ``eos_token_id`` that
    is neither the id of a token nor a list of ids.
    """
    quiet_transformers()
    from transformers import GenerationConfig, PreTrainedConfig

    where = os.fspath(directory)
    readers: dict[str, Callable[[], Mapping[str, Any]]] = {
        CONFIG: lambda: PreTrainedConfig.get_config_dict(where, local_files_only=True)[0],
        GENERATION_CONFIG: lambda: GenerationConfig.from_pretrained(where, local_files_only=True).to_dict(),
    }
    found = set() if tokenizer.eos_token_id is None else {int(tokenizer.eos_token_id)}
    for name, read in readers.items():
        path = directory / name
        if path.is_file():
            try:
                given = read().get("eos_token_id")
            except Exception as error:  # the library raises nothing narrower
                raise _damaged(path, error) from None
            found.update(_ids(path, given))
    return frozenset(found)


def chat_files(directory: Path) -> list[Path]:
    """The files of a model that its renderer is made from, but for ``config.json``: a copy of the model needs them."""
    names = (TOKENIZER, TOKENIZER_CONFIG, *_OTHER_SETTINGS, TEMPLATE, PROCESSOR_TEMPLATE, GENERATION_CONFIG)
    return [directory / name for name in names if (directory / name).is_file()]


def quiet_transformers() -> None:
    """Keep ``transformers`` from printing advice, such as that PyTorch is missing, unless the user asks for it.

    It reads this variable when it is imported, so call this before.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _ids(path: Path, given: Any) -> Iterator[int]:
    for value in given if isinstance(given, list) else [] if given is None else [given]:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            shown = repr(given)[:80]
            raise UserError(f"{path}: eos_token_id is {shown}: write the id of a token, or a list of ids")
        yield value


def _processor_template(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        template = json.loads(path.read_text("utf-8"))["chat_template"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from None
    if not isinstance(template, str):
        raise UserError(f"{path}: chat_template is {repr(template)[:40]}, which is no text: {_REMEDY}")
    return template


def _damaged_file(directory: Path) -> Path:
    """The file for which ``transformers`` could not make a tokenizer."""
    try:
        Tokenizer.from_file(os.fspath(directory / TOKENIZER))
    except Exception:
        return directory / TOKENIZER
    for name in (TOKENIZER_CONFIG, *_OTHER_SETTINGS):
        path = directory / name
        try:
            if path.is_file() and not isinstance(json.loads(path.read_bytes()), dict):
                return path
        except (ValueError, RecursionError):
            return path
    present = [name for name in (TOKENIZER_CONFIG, TEMPLATE) if (directory / name).is_file()]
    return directory / (present[0] if present else TOKENIZER)


def _damaged(path: Path, error: Exception) -> UserError:
    why = " ".join(str(error).split())[:200]
    return UserError(f"{path} is damaged ({type(error).__name__}: {why}): {_REMEDY}")
