"""A model's directory for tests: the small tokenizers with templates and settings beside them."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

TEMPLATES = Path(__file__).parent / "templates"
HYBRID = (TEMPLATES / "qwen3.jinja").read_text()
INSTRUCT = (TEMPLATES / "qwen3_instruct_2507.jinja").read_text()
SMOLLM2 = (  # with the default system message of the family
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_model(directory: Path, tokenizer: Tokenizer, **files: Any) -> Path:
    """A directory with the tokenizer and ``files``: ``a__b`` is the file a.b, a text as it is, all else as JSON."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (directory / name.replace("__", ".")).write_text(text, "utf-8")
    return directory


def changed(template: str, old: str, new: str) -> str:
    """``template`` with ``old`` replaced, which has to be there."""
    assert old in template
    return template.replace(old, new)
