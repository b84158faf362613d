"""What the relay sees of SGLang 0.5.23, for faults that a real server cannot be made to show."""

import asyncio
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


class Running:
    """An ASGI application on a free port of this machine, in a thread, while the block runs."""

    def __init__(self, app: Any) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://{}:{}".format(*self._listener.getsockname())
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(300)
        self._listener.close()


class FakeSGLang:
    """Loads and unloads by name.

    ``refuse``: its reason to refuse any load. ``status``: the status of every response. ``busy``: seconds that a load
    or an unload takes, ``busy_listing``: that the list of models takes. ``files_at_unload``: whether the files were
    still there, at each unload.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, str] = {}
        self.refuse, self.status, self.asked = "", 200, 0
        self.api_key, self.busy, self.busy_listing = "", 0.0, 0.0
        self.files_at_unload: list[bool] = []
        routes = [
            Route("/load_lora_adapter", self._load, methods=["POST"]),
            Route("/unload_lora_adapter", self._unload, methods=["POST"]),
            Route("/v1/models", self._models),
        ]
        self.app = Starlette(routes=routes)

    async def _load(self, request: Request) -> JSONResponse:
        if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        body = await request.json()
        await asyncio.sleep(self.busy)
        name, path = body["lora_name"], Path(body["lora_path"])
        if not self.refuse and name not in self.loaded and (path / "adapter_model.safetensors").is_file():
            self.loaded[name] = str(path)
            return self._answer(True)
        return self._answer(False, self.refuse or f"Failed to load LoRA adapter {name} because it is already loaded")

    async def _unload(self, request: Request) -> JSONResponse:
        name = (await request.json())["lora_name"]
        await asyncio.sleep(self.busy)
        if path := self.loaded.pop(name, None):
            self.files_at_unload.append(Path(path).is_dir())
            return self._answer(True)
        return JSONResponse({"success": False, "error_message": f"LoRA with name {name} does not exist."}, 400)

    async def _models(self, request: Request) -> JSONResponse:
        await asyncio.sleep(self.busy_listing)
        base = {"id": "base", "root": "base", "parent": None}
        cards = [{"id": name, "root": path, "parent": "base"} for name, path in self.loaded.items()]
        return JSONResponse({"data": [base, *cards]})

    def _answer(self, success: bool, message: str = "") -> JSONResponse:
        self.asked += 1
        status = self.status if self.status != 200 else 200 if success else 400
        return JSONResponse(
            {"success": success, "error_message": message, "loaded_adapters": dict(self.loaded)}, status
        )
