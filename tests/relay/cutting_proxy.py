"""A bad network: passes bytes on to a server, slowly if asked to, and cuts or damages the first uploads."""

import asyncio
import socket
import threading
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Cuts the connection after ``after`` bytes of the client, ``times`` times; with ``damage`` it changes that byte
    instead. Everything else passes, after ``pause`` seconds for each 64 KiB."""

    def __init__(self, port: int, after: int, times: int, damage: bool = False, pause: float = 0.0) -> None:
        self._port, self._after, self._left, self._damage, self._pause = port, after, times, damage, pause
        self.faults = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.ensure_future(self._pass(there, writer))
        seen = 0
        try:
            while piece := await reader.read(1 << 16):
                place = self._after - seen
                seen += len(piece)
                if self._left and 0 <= place < len(piece):
                    self._left -= 1
                    self.faults += 1
                    if not self._damage:
                        to_there.write(piece[:place])
                        await to_there.drain()
                        break
                    piece = piece[:place] + bytes([piece[place] ^ 1]) + piece[place + 1 :]
                to_there.write(piece)
                await to_there.drain()
                await asyncio.sleep(self._pause)
        except ConnectionError:
            pass
        finally:
            to_there.transport.abort()
            writer.transport.abort()
            await asyncio.gather(back, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()

    async def _end(self) -> None:
        self._server.close()
        for task in (open_now := asyncio.all_tasks() - {asyncio.current_task()}):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)

    def __enter__(self) -> Self:
        self._thread.start()
        listener = socket.create_server(("127.0.0.1", 0))
        if self._pause:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # the sender notices
        serving = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, sock=listener), self._loop)
        self._server = serving.result(10)
        self.url = "http://{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
