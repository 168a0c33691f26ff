"""HTTP/1.1 written byte by byte, so that a server can break every rule of it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

POLL_SECONDS = 0.01


class Request(Struct):
    """A parsed request.

    Attributes:
        method, path, headers: As sent, except that header names are in lower case.
        json: The decoded body; None if there is none.
    """

    method: str
    path: str
    headers: dict[str, str]
    json: Any

    @property
    def key(self) -> str:
        """The API key of the client, which some faults repeat."""
        return self.headers.get("authorization", "").removeprefix("Bearer ")


class Broken(Exception):
    """An exception that ends a connection in the middle of a reply."""


class Reply:
    """A response in progress.

    Args:
        writer: The connection.

    Attributes:
        keep: Whether the connection can take another request afterwards.
        on_reset: Called if the connection is reset before its next request: the client may not have read the reply.
        on_end: Called if the connection ends before its next request, for whatever reason.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._chunked = False
        self.keep = True
        self.on_reset: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None

    async def raw(self, data: bytes) -> None:
        """Write bytes unchanged."""
        self._writer.write(data)
        await self._writer.drain()
        await asyncio.sleep(0)

    async def head(self, status: int, *headers: tuple[str, str], kind: str = "application/json") -> None:
        """Write the status line and headers."""
        lines = [
            f"HTTP/1.1 {status} Whatever",
            f"Content-Type: {kind}",
            *(f"{name}: {value}" for name, value in headers),
        ]
        await self.raw("\r\n".join([*lines, "", ""]).encode("utf-8", "replace"))

    async def whole(self, status: int, body: bytes, *headers: tuple[str, str], kind: str = "application/json") -> None:
        """Write a complete response with its length."""
        await self.head(status, ("Content-Length", str(len(body))), *headers, kind=kind)
        await self.raw(body)

    async def stream(self) -> None:
        """Begin a chunked stream of server-sent events."""
        await self.head(200, ("Transfer-Encoding", "chunked"), kind="text/event-stream")

    async def chunk(self, data: bytes) -> None:
        """Write one chunk."""
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """Write the last chunk."""
        await self.raw(b"0\r\n\r\n")

    def reset(self) -> Broken:
        """Reset the TCP connection, and return an exception for the caller to raise."""
        reset(self._writer)
        return Broken()

    def close(self) -> Broken:
        """Close the connection cleanly, and return an exception for the caller to raise."""
        self._writer.close()
        return Broken()

    async def stall(self) -> None:
        """Send nothing more until the client leaves."""
        await asyncio.Event().wait()


def reset(writer: asyncio.StreamWriter) -> None:
    """Reset a TCP connection instead of closing it."""
    found = writer.get_extra_info("socket")
    with suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


Handler = Callable[[Request, Reply], Awaitable[None]]


class Listener:
    """A local port that can close and reopen. Use as an async context manager.

    Args:
        handle: Function that answers a request.

    Attributes:
        url: Address of the port.
        open: Number of requests that are being answered.
    """

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._socket: socket.socket | None = None
        self._port = 0
        self._writers: dict[asyncio.StreamWriter, Reply | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._back: asyncio.Task[None] | None = None
        self.url = ""
        self.open = 0

    async def __aenter__(self) -> Listener:
        self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._back is not None:
            self._back.cancel()
        self.down()
        await asyncio.sleep(0)  # a task that has not begun would leave its connection open
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def down(self) -> None:
        """Refuse new connections, and reset all open ones."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for writer, reply in tuple(self._writers.items()):
            reset(writer)
            if reply is not None:
                reply.on_reset()

    def restart(self, seconds: float) -> None:
        """Close the port, and reopen it after a while."""
        if self._socket is not None:
            self.down()
            self._back = asyncio.create_task(self._come_back(seconds))

    async def _come_back(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._listen()

    def _listen(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", self._port))
        self._socket.setblocking(False)
        self._port = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        # Not asyncio.start_server: Python 3.11 loses a connection whose server closes while it is accepted.
        asyncio.get_running_loop().add_reader(self._socket, self._accept, self._socket)

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:  # the client has left already
            return
        task = asyncio.create_task(self._connected(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=2**24)
        self._writers[writer] = None
        try:
            while (request := await _read(reader)) is not None:
                if not await self._answer(request, reader, writer):
                    return
        except (OSError, Broken, asyncio.IncompleteReadError):
            return
        finally:
            if (reply := self._writers.pop(writer)) is not None:
                reply.on_end()
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request until the client leaves; return whether the connection can be kept."""
        reply = self._writers[writer] = Reply(writer)
        work = asyncio.ensure_future(self._handle(request, reply))
        left = asyncio.create_task(_leave(reader))
        self.open += 1
        try:
            await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
            done = work.done()
        finally:
            self.open -= 1
            for task in (work, left):
                task.cancel()
            results = await asyncio.gather(work, left, return_exceptions=True)
        if done and isinstance(results[0], Exception) and not isinstance(results[0], Broken | OSError):
            raise results[0]
        return done and results[0] is None and reply.keep


async def _leave(reader: asyncio.StreamReader) -> None:
    """Wait until the client closes the connection, without reading a byte of its next request."""
    while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110, for nothing tells
        await asyncio.sleep(POLL_SECONDS)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """Read the next request of a connection; None at its end."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    line, *rest = head.strip().split("\r\n")
    method, path, _ = line.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in rest)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path.partition("?")[0], headers, msgspec.json.decode(body) if body else None)
