"""launch.serve as a user starts it, on a finished run: routed, asked by the official client, drained by SIGTERM."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
import openai
import pytest
from flax import nnx
from programs import run_program

from trace_jax.chat.tiny import TinyRenderer
from trace_jax.chat.tokenizer import save_tokenizer, train_tokenizer
from trace_jax.contract.adapter import AdapterManifest, peft_checksums
from trace_jax.contract.digest import checksum
from trace_jax.contract.files import read_records, write_document
from trace_jax.contract.routing import Route, RouteDecision, RouteTable
from trace_jax.contract.served import ServedRequest
from trace_jax.contract.trajectory import Message, Policy
from trace_jax.engines.embedded.engine import EmbeddedEngine
from trace_jax.engines.protocol import Sampling
from trace_jax.engines.settings import EngineSettings
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.huggingface import revision, save
from trace_jax.models.formats.peft import save_peft
from trace_jax.models.lora import LoRA, init_lora, merge
from trace_jax.routing.gate import Gate, save_gate

ROOT = Path(__file__).parents[2]
CONFIG = DecoderConfig(
    vocab_size=320, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=48,
    tie_embeddings=True,
)  # fmt: skip


class Run:
    """A pipeline's work directory, as far as it is served, with a gate that always wants two adapters."""

    def __init__(self, directory: Path) -> None:
        self.model, self.root = directory / "tiny", directory / "run"
        self.decoder, rng = Decoder(CONFIG, nnx.Rngs(0)), np.random.default_rng(0)
        big = jax.tree.map(lambda x: x + 0.2 * rng.standard_normal(x.shape, np.float32), nnx.state(self.decoder))
        nnx.update(self.decoder, big)
        save(self.decoder, CONFIG, self.model)
        tokenizer = train_tokenizer(["please cancel the order and refund the customer"] * 3, CONFIG.vocab_size)
        save_tokenizer(tokenizer, self.model)
        self.renderer, self.revision = TinyRenderer(tokenizer), revision(self.model)
        self.loras = {name: self._adapter(name, seed) for seed, name in enumerate(("a", "b", "c"))}
        names, width = ("", *self.loras), CONFIG.hidden_size
        zeros, bias = np.zeros((width, 3)), np.array([9.0, -9.0, 9.0])
        gate = Gate(self.revision, names, "last", np.zeros(width), np.ones(width), zeros, bias)
        (self.root / "routing").mkdir()
        path = self.root / "routing" / "gate.safetensors"
        save_gate(path, gate)
        routes = tuple(Route(adapter=name, capability=name, description=name) for name in self.loras)
        table = RouteTable(
            base=self.revision, router="gate", routes=routes, gate=path.name, gate_sha256=checksum(path).sha256
        )
        write_document(self.root / "routing" / "route_table.json", table)

    def _adapter(self, name: str, seed: int) -> LoRA:
        rng, fresh, directory = np.random.default_rng(seed), init_lora(CONFIG, 2, 4.0), self.root / "adapters" / name
        filled = jax.tree.map(lambda x: 0.2 * rng.standard_normal(x.shape, np.float32), fresh.weights)
        save_peft(lora := LoRA(filled, fresh.scale), CONFIG, directory / "peft", self.revision)
        manifest = AdapterManifest(
            name=name, capabilities=(name,), environments=(), base=self.revision, rank=2, alpha=4.0,
            target_modules=lora.targets, peft="peft", files=peft_checksums(directory / "peft"), checkpoint="checkpoint",
            steps=1, rollouts=1, seed=0,
        )  # fmt: skip
        write_document(directory / "adapter.json", manifest)
        return lora

    def command(self, *flags: str) -> list[str]:
        base = [sys.executable, "-m", "launch.serve", "--config=configs/quickstart.py", f"--workdir={self.root}"]
        return [*base, f"--config.base.path={self.model}", "--port=0", *flags]

    def sampled(self, said: str, tokens: int) -> str:
        """What the base with both wanted adapters says."""
        engine = EmbeddedEngine(
            self.decoder, CONFIG, self.renderer.stop_token_ids, EngineSettings(slots=4, capacity=512)
        )
        engine.set_adapter("both", merge([self.loras["a"], self.loras["c"]], [1.0, 1.0]))
        prompt = self.renderer.prompt([Message(role="user", content=said)], ())
        done = asyncio.run(engine.generate(prompt, Sampling(tokens, 0.0), "both"))
        return self.renderer.parse(done.token_ids).content or ""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("serve"))


def started(command: list[str]) -> tuple[subprocess.Popen, str]:
    """The program and its address, when it serves."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    return process, re.match(r"http://\S+/v1", line).group()


def test_a_finished_run_is_served_and_drained(run):
    process, address = started(run.command("--aliases=gpt-4o", "--drain_seconds=90", "--record"))
    try:
        with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["tiny", "gpt-4o", "base", "a", "b", "c"]
            asked = {"messages": [{"role": "user", "content": "cancel the order"}], "temperature": 0.0}
            response = client.chat.completions.with_raw_response.create(model="gpt-4o", max_tokens=16, **asked)
            assert response.headers["X-Trace-Adapter"] == "1.000000*a+1.000000*c"
            assert response.headers["X-Trace-Router"] == "gate"
            assert (response.parse().choices[0].message.content or "") == run.sampled("cancel the order", 16)

            assert "gateway: process " in failed(run.command())

            stream = client.completions.create(model="base", prompt="cancel", n=16, max_tokens=480, stream=True)
            chunks = [next(iter(stream))]
            process.send_signal(signal.SIGTERM)
            chunks += list(stream)  # to its end
            ended = {choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason}
            assert ended == set(range(16))
        process.wait(120)
        log = process.stderr.read()
        assert process.returncode == 0, log
        assert "/v1/chat/completions 200 1.000000*a+1.000000*c" in log and "cancel" not in log
    finally:
        process.kill()
    path = run.root / "gateway" / "conversations.jsonl"
    assert f"the contents of all messages are recorded in {path}" in log and path.stat().st_mode & 0o777 == 0o600
    chat, text = read_records(path, ServedRequest)
    assert chat.messages == (Message(role="user", content="cancel the order"),) and chat.cut is None
    assert chat.policy == Policy(base=run.revision, adapter="1.000000*a+1.000000*c") and text.policy.adapter is None
    assert len(text.answers) == 16 and {answer.finish_reason for answer in text.answers} <= {"stop", "length"}
    (decision,) = read_records(run.root / "gateway" / "decisions.jsonl", RouteDecision)
    assert (
        decision.adapters == {"a": 1.0, "c": 1.0} and decision.conversation == response.headers["X-Trace-Conversation"]
    )


def test_sigterm_ends_it_in_time_whatever_is_open_and_an_open_door_is_warned_of(run):
    process, address = started(run.command("--host=0.0.0.0", "--drain_seconds=3"))
    place = ("127.0.0.1", int(re.search(r":(\d+)/", address).group(1)))
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
    body = b'{"model":"base","prompt":"cancel","n":16,"max_tokens":480,"stream":true}'
    whole = head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    wires = [b"", head, head + b"Content-Length: 9\r\n\r\n{", *[whole] * 40]  # more streams than can end in time
    try:
        with ExitStack() as stack:
            for wire in wires:
                stack.enter_context(socket.create_connection(place, timeout=60)).sendall(wire)
            time.sleep(1.0)
            process.send_signal(signal.SIGTERM)
            process.wait(40)  # a body alone may take 60 seconds
        assert process.returncode == 0
        assert "listening at 0.0.0.0 without API keys" in process.stderr.read()
    finally:
        process.kill()


def failed(command: list[str]) -> str:
    assert command[:2] == [sys.executable, "-m"]
    done = run_program(*command[2:])
    assert done.returncode in (1, 2) and not done.stdout
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("INFO", "WARNING"))]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


def test_what_a_user_can_mend_is_said_in_one_line(run, tmp_path):
    nothing = failed([*run.command(), f"--workdir={tmp_path}"])
    assert "route_table.json: no such file" in nothing
    assert "no server to generate with" in failed(
        run.command("--config.engine.kind=sglang", "--config.engine.url=http://127.0.0.1:9")
    )
    empty = tmp_path / "keys"
    empty.touch()
    assert "holds no API key" in failed(run.command(f"--api_keys={empty}"))


def test_help_tells_how(run):
    done = run_program("launch.serve", "--help")
    assert "base_url" in done.stdout and "engine.url" in done.stdout and "X-Trace-Conversation" in done.stdout
