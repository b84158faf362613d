"""The socket that the gateway listens at."""

import socket


def listen(host: str, port: int) -> socket.socket:
    """A listening socket whose connections send small writes at once.

    asyncio asks for that only where it makes the socket itself. Without it a streamed answer, which is written in
    several pieces, waits 40 ms for the client's delayed acknowledgement of the first. Raises OSError.
    """
    listener = socket.create_server((host, port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
    return listener
