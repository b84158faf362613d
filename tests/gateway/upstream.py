"""A stand-in for an SGLang server, for what a real one cannot be made to show: exact bytes, faults at given moments."""

import asyncio
import json
import socket
import threading
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

# Spacing, order and escapes that no library would write again just so.
WHOLE = b'{ "id":"x",  "object":"chat.completion","created":1,"model":"tiny","choices":[{"index":0,"message":{"role":\
"assistant","content":"h\\u00e9"},"finish_reason":"stop"}], "odd": 1.50 }'


def _chunk(delta: str, reason: str = "null") -> str:
    head = '{"id":"x","object":"chat.completion.chunk","created":1,"model":"m"'
    return f'{head},"choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]}}'


_CALL = '{"index":0,"id":"c1","type":"function","function":{"name":"refund","arguments":"{}"}}'
_CHUNKS = [
    _chunk('{"role":"assistant","content":"one "}'),
    _chunk('{"content":"two"}'),
    _chunk('{"tool_calls":[' + _CALL + "]}", '"tool_calls"'),
    "[DONE]",
]
_STREAM = "".join(f"data: {chunk}\n\n" for chunk in _CHUNKS).encode()
EVENTS = [_STREAM[at : at + 120] for at in range(0, len(_STREAM), 120)]  # as TCP delivers them: cut anywhere


class Upstream:
    """Answers at a port that it keeps when it is stopped and started again."""

    def __init__(self, max_rank: int | None = 16) -> None:
        self.max_rank = max_rank
        self.calls: list[tuple[str, dict[str, str], bytes]] = []  # path, headers, body
        self.adapters: dict[str, str] = {}
        self.generates: list[dict[str, Any]] = []
        self.refused_adapters: set[str] = set()  # by how their names begin
        self.deaf = False  # takes adapters, and computes what the base computes
        self.api_key = ""
        self.in_flight = self.most = 0
        self.echo = ""  # said by a 400
        self.status = 200
        self.hang = False  # not ready, and streams stand still
        self.unloads: list[str] = []
        self.delay = 0.0  # before an answer, and between events
        self.break_off = ""  # "before" an answer, or "within" one
        self.cancelled = threading.Event()
        listener = socket.create_server(("127.0.0.1", 0))
        self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._start(listener)

    def start(self) -> None:
        """Begin anew, as a process does: without adapters."""
        self.adapters.clear()
        self._start(socket.create_server(("127.0.0.1", self._port)))

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    def _start(self, listener: socket.socket) -> None:
        routes = [
            Route("/ready", lambda _: Response(status_code=503 if self.hang else 200)),
            Route("/v1/models", self._models),
            Route("/server_info", self._info),
            Route("/load_lora_adapter", self._load, methods=["POST"]),
            Route("/unload_lora_adapter", self._unload, methods=["POST"]),
            Route("/generate", self._generate, methods=["POST"]),
            Route("/v1/chat/completions", self._answer, methods=["POST"]),
            Route("/v1/completions", self._answer, methods=["POST"]),
        ]
        app = self._guarded(Starlette(routes=routes))
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: self._server.run(sockets=[listener]), daemon=True)
        self._thread.start()

    def _guarded(self, app: ASGIApp) -> ASGIApp:
        async def ask(scope: Scope, receive: Receive, send: Send) -> None:
            shown = Request(scope).headers.get("authorization", "")
            allowed = not self.api_key or shown == f"Bearer {self.api_key}" or scope["path"] == "/ready"
            await (app if allowed else JSONResponse({"error": "Unauthorized"}, 401))(scope, receive, send)

        return ask

    async def _models(self, request: Request) -> Response:
        base = {"id": "tiny", "root": "/models/tiny", "max_model_len": 4096}
        loaded = [{"id": name, "root": root, "parent": "tiny"} for name, root in self.adapters.items()]
        return JSONResponse({"object": "list", "data": [base, *loaded]})

    async def _info(self, request: Request) -> Response:
        modules = ["q_proj", "v_proj"]
        return JSONResponse({"enable_lora": True, "max_lora_rank": self.max_rank, "lora_target_modules": modules})

    async def _load(self, request: Request) -> Response:
        asked = await request.json()
        name = asked["lora_name"]
        refused = name.startswith(tuple(self.refused_adapters))
        why = "already loaded" if name in self.adapters else "too heavy" if refused else ""
        if not why:
            self.adapters[name] = asked["lora_path"]
        answer = {"success": not why, "error_message": why, "loaded_adapters": self.adapters}
        return JSONResponse(answer, 400 if why else 200)

    async def _unload(self, request: Request) -> Response:
        name = (await request.json())["lora_name"]
        self.unloads += [name] * (not name.partition("-")[2].count("-"))  # but for louder copies
        held = self.adapters.pop(name, None)
        return JSONResponse({"success": held is not None}, 400 if held is None else 200)

    async def _generate(self, request: Request) -> Response:
        asked = await request.json()
        if "logprob_start_len" in asked:
            rows = zip(asked["input_ids"], asked["lora_path"], strict=True)
            return JSONResponse([self._probed(ids, adapter) for ids, adapter in rows])
        self.generates.append(asked)
        rows = [
            {"meta_info": {"output_token_ids_logprobs": [[[-float(token), token, None] for token in reversed(ids)]]}}
            for ids in asked["token_ids_logprob"]
        ]
        return JSONResponse(rows)

    def _probed(self, ids: list[int], adapter: str | None) -> dict[str, Any]:
        """Log-probabilities of a prompt, other ones under each adapter."""
        size = 0.0 if adapter is None or self.deaf else 1.0
        return {"meta_info": {"input_token_logprobs": [[-4.0 - size, token, None] for token in ids]}}

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        self.calls.append((request.url.path, dict(request.headers), body))
        fields = json.loads(body)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        adapter = fields["model"].partition(":")[2]
        if adapter and adapter not in self.adapters:
            return JSONResponse({"message": f"Got LoRA adapter that has never been loaded: {adapter}\nAll"}, 400)
        try:
            await asyncio.wait_for(_gone(request), self.delay)
        except TimeoutError:
            pass
        else:
            self.cancelled.set()
        if self.break_off == "before":
            self._abort()
        if self.echo:
            return JSONResponse({"message": self.echo}, 400)
        if self.status != 200:
            return JSONResponse({"message": "no"}, self.status, {"Retry-After": "7"})
        if fields.get("temperature") == 99:
            return Response(
                b'{"object":"error","message":"no such heat","code":418}', 418, media_type="application/json"
            )
        if not fields.get("stream"):
            self.in_flight -= 1  # before the last byte, after which another call may come
        if fields.get("stream"):
            return StreamingResponse(self._events(), media_type="text/event-stream")
        return Response(WHOLE, media_type="application/json", headers={"X-Secret": "internal"})

    async def _events(self):
        try:
            for number, part in enumerate(EVENTS):
                self.in_flight -= number == len(EVENTS) - 1
                if number == 2 and self.break_off == "within":
                    self._abort()
                yield part
                while self.hang:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def _abort(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()


async def _gone(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.01)
