"""The client of one SGLang server, for its native HTTP interface (version 0.5.23)."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import numpy as np

from trace_jax.engines.protocol import Completion, Sampling
from trace_jax.engines.sglang.http_sessions import Sessions
from trace_jax.errors import EngineError, EngineGone
from trace_jax.relay.files import API_KEY

_CONNECT_SECONDS = 5.0
_QUICK_SECONDS = 10.0  # timeout of requests that take a server no work
_BUSY = (429, 503)  # statuses of a server that is overloaded or paused


class ServerFailed(EngineError):
    """The server did not answer, answered 5xx, or answered nonsense. Another server may do better."""


class ServerBusy(ServerFailed):
    """The server answered that it can take no more at the moment. The request may be sent again later."""


class ServerTimeout(ServerFailed):
    """The server took the request and did not answer in time."""


class Refused(EngineError):
    """The server answered 4xx: the request is wrong, and no server would take it."""


@dataclass(frozen=True)
class ServerInfo:
    """How a server was started."""

    model: str  # its name in the OpenAI routes
    context: int  # tokens of a request, prompt and completion together
    adapters: bool  # whether it was started with --enable-lora
    max_rank: int | None  # of an adapter; None: unknown
    modules: tuple[str, ...] | None  # that adapters may target; None: all


OUTAGES = (EngineGone, ServerFailed)  # errors that say nothing about the request itself


class SGLangServer:
    """Token ids in, token ids and log-probabilities out; adapters by name.

    Every method raises ServerFailed or Refused. ``seconds`` is the timeout of one generation, one loading and one
    unloading. ``api_key`` is the value of the server's ``--api-key``.
    """

    def __init__(self, url: str, seconds: float, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._seconds = seconds
        self._sessions = Sessions()
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    async def generate(
        self, token_ids: Sequence[int], sampling: Sampling, adapter: str | None, stop_token_ids: Sequence[int]
    ) -> Completion:
        """Sample after ``token_ids``. The server also stops at its own model's end-of-text tokens.

        Raises EngineError for log-probabilities that are not finite.
        """
        body = {
            "input_ids": [int(token) for token in token_ids],
            "sampling_params": _parameters(sampling, stop_token_ids),
            "return_logprob": True,
            "lora_path": adapter,
        }
        return self._completion(await self._call("POST", "/generate", body, self._seconds), sampling)

    async def prompt_logprobs(self, token_ids: Sequence[int], adapters: Sequence[str | None]) -> list[np.ndarray]:
        """Log-probabilities (temperature 1) of the tokens after the first, ``[T - 1]``, under each of ``adapters``."""
        rows = len(adapters)
        body = {
            "input_ids": [list(map(int, token_ids))] * rows,
            "sampling_params": _parameters(Sampling(1, 0.0), ()),
            "return_logprob": True,
            "logprob_start_len": 0,
            "lora_path": list(adapters),
        }
        answer = await self._call("POST", "/generate", body, self._seconds)
        try:
            read = [row["meta_info"]["input_token_logprobs"] for row in answer]
            if [len(row) for row in read] != [len(token_ids)] * rows:
                raise ValueError("other tokens")
            found = [np.array([np.nan if value is None else value for value, *_ in row[1:]], float) for row in read]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._nonsense("/generate", answer) from None
        return found

    async def next_logprobs(self, prompts: Sequence[Sequence[int]], token_ids: Sequence[int]) -> np.ndarray:
        """``[N, C]`` float32: log-probability under the base of each of the C ``token_ids`` after each prompt."""
        body = {
            "input_ids": [list(map(int, prompt)) for prompt in prompts],
            "sampling_params": _parameters(Sampling(1), ()),
            "return_logprob": True,
            "token_ids_logprob": [list(map(int, token_ids))] * len(prompts),
        }
        answer = await self._call("POST", "/generate", body, self._seconds)
        try:
            found = [row["meta_info"]["output_token_ids_logprobs"][0] for row in answer]
            rows = [{token: logprob for logprob, token, *_ in pairs} for pairs in found]
            return np.array([[row[token] for token in token_ids] for row in rows], np.float32)
        except (KeyError, IndexError, TypeError, ValueError, OverflowError):
            raise self._nonsense("/generate", answer) from None

    async def forward(self, path: str, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The response to a POST whose body is passed on unchanged.

        The caller reads and closes the response; that of an error (status 400 and above) has been read.
        ``seconds`` is the timeout of each wait for more of it.
        """
        with self._failures(path, self._seconds):
            session = await self._sessions.get()
            response = await session.post(
                self.url + path,
                data=body,
                headers={**headers, **self._headers},
                skip_auto_headers=("User-Agent",),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=self._seconds),
            )
            if response.status >= 400:
                await response.read()
            return response

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load the PEFT directory ``path``. The server must see it under the same path."""
        await self._call("POST", "/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}, self._seconds)

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter once no request uses it. Raises Refused if it is not loaded."""
        await self._call("POST", "/unload_lora_adapter", {"lora_name": name}, self._seconds)

    async def ready(self) -> None:
        """Return if the server takes requests."""
        await self._call("GET", "/ready", read=False)

    async def adapters(self) -> dict[str, str]:
        """Path of every loaded adapter by name."""
        return {card["id"]: card["root"] for card in await self._cards() if card.get("parent")}

    async def lost(self, adapter: str, error: str) -> bool:
        """Whether ``adapter``, which was loaded, is gone because the server is a new process.

        The server is asked only if the text of ``error`` suggests it. The text alone proves nothing, because it may
        quote the request.
        """
        return "lora adapter" in error.lower() and adapter in error and adapter not in await self.adapters()

    async def info(self) -> ServerInfo:
        """How the server was started, with the defaults filled in."""
        given = await self._call("GET", "/server_info")
        if not isinstance(given, dict):
            raise self._nonsense("/server_info", given)
        base = next(card for card in await self._cards() if not card.get("parent"))
        cache, rank, modules = (given.get(k) for k in ("max_total_num_tokens", "max_lora_rank", "lora_target_modules"))
        context = int(base["max_model_len"])
        return ServerInfo(
            model=base["id"],
            context=min(context, cache) if isinstance(cache, int) else context,
            adapters=bool(given.get("enable_lora")),
            max_rank=rank if isinstance(rank, int) else None,
            modules=tuple(modules) if isinstance(modules, list) and "all" not in modules else None,
        )

    async def workers(self) -> list[str]:
        """URLs of the servers behind it if it is a sglang-router; otherwise its own URL."""
        try:
            answer = await self._call("GET", "/workers")
        except Refused:
            return [self.url]
        try:
            return [str(worker["url"]).rstrip("/") for worker in answer["workers"]]
        except (KeyError, TypeError):
            raise self._nonsense("/workers", answer) from None

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        await self._sessions.close()

    async def _cards(self) -> list[dict[str, Any]]:
        answer = await self._call("GET", "/v1/models")
        try:
            cards: list[dict[str, Any]] = answer["data"]
            assert all(card["id"] and card["root"] for card in cards)
            assert any(int(card["max_model_len"]) for card in cards if not card.get("parent"))
        except (AssertionError, KeyError, TypeError, ValueError, OverflowError):
            raise self._nonsense("/v1/models", answer) from None
        return cards

    def _completion(self, answer: Any, sampling: Sampling) -> Completion:
        try:
            meta = answer["meta_info"]
            reason, sampled = meta["finish_reason"], meta["output_token_logprobs"]
            kind, tokens = reason["type"], tuple(int(token) for _, token, *_ in sampled)
            logprobs = tuple(math.nan if value is None else float(value) for value, *_ in sampled)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise self._nonsense("/generate", answer) from None
        if kind == "abort":  # the server was paused or the request aborted: the tokens are not a completion
            raise ServerBusy(f"{self.url} gave the request up ({reason.get('message') or 'abort'})")
        if not all(map(math.isfinite, logprobs)) or reason.get("matched") == "NaN happened":
            raise EngineError(
                f"{self.url} returned log-probabilities that are not finite: check the weights of model and adapter"
            )
        if kind not in ("stop", "length") or not tokens or len(tokens) > sampling.max_tokens:
            raise self._nonsense("/generate", answer)
        if kind == "length" and len(tokens) < sampling.max_tokens:
            raise EngineError(
                f"{self.url} ended after {len(tokens)} of {sampling.max_tokens} tokens: start it with a larger "
                "--max-total-tokens or --context-length"
            )
        finish: Literal["stop", "length"] = "stop" if kind == "stop" else "length"
        return Completion(tokens, logprobs, finish)

    async def _call(
        self, method: str, path: str, body: object = None, seconds: float = _QUICK_SECONDS, *, read: bool = True
    ) -> Any:
        limit = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        with self._failures(path, seconds):
            session = await self._sessions.get()
            async with session.request(
                method, self.url + path, json=body, headers=self._headers, timeout=limit
            ) as response:
                status, data = response.status, await response.read()
        if status >= 400:
            message = f"{self.url}{path} answered {status}: {_message(data)}"
            if status == 401:
                message += f": set {API_KEY} to its --api-key"
            raise (ServerBusy if status in _BUSY else ServerFailed if status >= 500 else Refused)(message)
        if not read:
            return None
        try:
            return json.loads(data)
        except ValueError:
            raise self._nonsense(path, data[:80]) from None

    @contextmanager
    def _failures(self, path: str, seconds: float) -> Iterator[None]:
        """Errors of the connection become ServerFailed."""
        try:
            yield
        except aiohttp.ConnectionTimeoutError:
            raise ServerFailed(f"{self.url}: no connection in {_CONNECT_SECONDS:g} s") from None
        except TimeoutError:
            raise ServerTimeout(f"{self.url}{path} did not answer in {seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ServerFailed(f"{self.url}{path}: {' '.join(str(error).split()) or type(error).__name__}") from None

    def _nonsense(self, path: str, answer: object) -> ServerFailed:
        return ServerFailed(
            f"{self.url}{path} answered in a form that this program does not know: {str(answer)[:120]!r}"
        )


def _parameters(sampling: Sampling, stop_token_ids: Sequence[int]) -> dict[str, object]:
    """Plain sampling, whatever the server's defaults are. Temperature 0 is greedy there too."""
    return {
        "max_new_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": list(stop_token_ids),
        "sampling_seed": sampling.seed,
    }


def _message(data: bytes) -> str:
    """The message of an error response, in one line."""
    try:
        answer = json.loads(data)
    except ValueError:
        answer = data.decode(errors="replace")
    if isinstance(answer, dict):
        error = answer.get("error_message") or answer.get("error") or answer.get("message") or answer.get("detail")
        answer = error.get("message") if isinstance(error, dict) else error or answer
    return " ".join(str(answer).split())[:300]
