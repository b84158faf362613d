"""SGLang servers as processes of a test run, on the CPU, and the tiny model that they serve."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from trace_jax.chat.tokenizer import save_tokenizer, train_tokenizer
from trace_jax.engines.settings import EngineSettings
from trace_jax.engines.sglang.engine import SGLangEngine
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import Decoder
from trace_jax.models.formats.huggingface import save
from trace_jax.models.lora import LoRA, init_lora

HERE = Path(__file__).parent
PYTHON = Path(os.environ.get("SGLANG_PYTHON", HERE.parents[1] / ".venv-sglang" / "bin" / "python"))
START_SECONDS = 900.0  # on a machine that is busy with something else
MAX_RANK = 16
STOP = (6,)  # <|end|>
ENVIRONMENT = {
    "OMP_NUM_THREADS": "2",
    **os.environ,
    "PYTHONPATH": str(HERE / "shims"),
    "SGLANG_USE_CPU_ENGINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}

CONFIG = DecoderConfig(
    vocab_size=320, hidden_size=64, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, intermediate_size=96,
    tie_embeddings=True,
)  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def random_decoder(seed: int) -> Decoder:
    """Weights so large that the model is sure of something."""
    decoder, rng = Decoder(CONFIG, nnx.Rngs(seed)), np.random.default_rng(seed)
    state = jax.tree.map(lambda x: x + 0.15 * rng.standard_normal(x.shape, np.float32), nnx.state(decoder))
    nnx.update(decoder, state)
    return decoder


def random_lora(seed: int, rank: int, targets: tuple[str, ...], size: float = 0.15) -> LoRA:
    """An adapter whose b is of about ``size``."""
    rng, fresh = np.random.default_rng(seed), init_lora(CONFIG, rank, 2.0 * rank, targets)
    weights = {
        name: {"a": pair["a"], "b": size * rng.standard_normal(pair["b"].shape, np.float32)}
        for name, pair in fresh.weights.items()
    }
    return LoRA(weights, fresh.scale)


def write_model(decoder: Decoder, directory: Path) -> Path:
    """A Hugging Face directory with a tokenizer and a chat template."""
    directory.mkdir(parents=True)
    spoken = ["please cancel the order and refund the customer", "the order was cancelled", "task again toy"]
    save_tokenizer(train_tokenizer(spoken * 3, CONFIG.vocab_size), directory)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    save(decoder, CONFIG, directory)
    return directory


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class RealServer:
    """A process group on a port of its own; ``kill`` is SIGKILL for all of it, ``start`` starts it there again."""

    def __init__(self, words: list[str], log: Path, port: int, probe: str) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self._words, self._probe = words, probe
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self._process is None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._words, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True
            )

    def wait(self) -> None:
        """Until it takes requests."""
        assert self._process is not None
        started = told = time.monotonic()
        while not self._answers():
            now = time.monotonic()
            if self._process.poll() is not None or now - started > START_SECONDS:
                tail = self.log.read_text(errors="replace")[-4000:]
                self.kill()
                raise RuntimeError(f"{self.url} did not start in {now - started:.0f} s:\n{tail}")
            if now - told > 20:
                told = now
                print(f"{self.url} is starting, for {now - started:.0f} s now; its log: {self.log}", flush=True)
            time.sleep(0.3)
        print(f"{self.url} started in {time.monotonic() - started:.0f} s", flush=True)

    def kill(self) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + self._probe, timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def running(server: RealServer) -> Iterator[RealServer]:
    """``server``, started and ready; killed at the end, whoever has killed or started it meanwhile."""
    try:
        server.start()
        server.wait()
        yield server
    finally:
        server.kill()


def sglang_server(model: Path, log: Path, *flags: str, dtype: str = "float32", lora: bool = True) -> RealServer:
    """A server of ``model``, not yet started."""
    if not PYTHON.exists():
        raise RuntimeError(f"{PYTHON} is missing: make test-sglang builds it")
    port = free_port()
    adapters = [
        *("--enable-lora", "--max-lora-rank", str(MAX_RANK)),
        *("--lora-target-modules", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        *("--max-loras-per-batch", "4", "--max-loaded-loras", "6", "--lora-backend", "torch_native"),
    ]
    words = [
        *(str(PYTHON), "-m", "sglang.launch_server", "--model-path", str(model), "--device", "cpu"),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", dtype, "--attention-backend", "torch_native"),
        *("--mem-fraction-static", "0.6", "--max-total-tokens", "8192", "--max-running-requests", "16"),
        *("--disable-overlap-schedule", "--sleep-on-idle", "--enable-metrics"),
        *("--tool-call-parser", "qwen25", *(adapters if lora else ()), *flags),
    ]
    return RealServer(words, log, port, "/ready")


def router(servers: list[str], log: Path) -> RealServer:
    """A sglang-router before ``servers``, not yet started."""
    port = free_port()
    words = [str(PYTHON), "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--policy", "cache_aware", "--prometheus-port", str(free_port()), "--worker-urls", *servers]
    return RealServer(words, log, port, "/readiness")


def new_engine(*servers: RealServer, **changes: float) -> SGLangEngine:
    defaults: dict[str, float] = {"slots": 16, "capacity": 256, "request_seconds": 120.0, "wait_seconds": 60.0}
    settings = EngineSettings(**(defaults | changes))  # type: ignore[arg-type]
    return SGLangEngine([server.url for server in servers], CONFIG, STOP, settings)
