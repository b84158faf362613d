"""A network that loses connections: passes bytes on to a server, and cuts or damages the first uploads."""

import asyncio
import threading
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Cuts the connection after ``after`` bytes of the client, ``times`` times; with ``damage`` it changes that byte
    instead. Everything else passes."""

    def __init__(self, port: int, after: int, times: int, damage: bool = False) -> None:
        self._port, self._after, self._left, self._damage = port, after, times, damage
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

    def __enter__(self) -> Self:
        self._thread.start()
        serving = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = serving.result(10)
        self.url = "http://{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
