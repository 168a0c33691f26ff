"""A proxy between a policy and its server that behaves like bad networks: it delays, cuts off, falsifies and dies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal, Self

import aiohttp
from aiohttp import web


@dataclass(frozen=True)
class Fault:
    """A fault that is applied to one request.

    Attributes:
        status: The status of an answer in place of the server's; 0 for none.
        body: The body of that answer.
        headers: The headers of that answer.
        kind: The content type of that answer.
        after: The number of events of the server's own answer that are passed on before `then`.
        then: The failure: the connection is reset, the answer ends early, it hangs, an event is damaged, or the
            server dies.
        wait: The delay in seconds before the answer.
    """

    status: int = 0
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    kind: str = "application/json"
    after: int = 0
    then: Literal["", "reset", "end", "hang", "damage", "die"] = ""
    wait: float = 0.0


PAGE = Fault(200, "<!DOCTYPE html><html><body>Please log in to use the network.</body></html>", kind="text/html")
"""The login page that a company's proxy returns for every server."""


class Proxy:
    """A faulty proxy, used as an asynchronous context manager.

    Args:
        upstream: The address of the server.
        faults: The initial `faults`.
        always: The initial `always`.

    Attributes:
        url: The proxy's own address.
        faults: The faults for the first requests to `path`, in order; None for no fault.
        forever: The fault for every later request to `path`.
        always: The fault for every request to any path.
        path: The path to which `faults` apply.
        count: The number of requests to `path` so far.
        open: The number of answers in progress.
    """

    def __init__(self, upstream: str, *faults: Fault | None, always: Fault | None = None) -> None:
        self.upstream, self.faults, self.always = upstream, list(faults), always
        self.forever: Fault | None = None
        self.url, self.path, self.count, self.open = "", "/generate", 0, 0
        self._transports: set[asyncio.WriteTransport] = set()
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._any)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    def die(self) -> None:
        """Break all connections, including new ones."""
        self.always = Fault(then="reset")
        for transport in tuple(self._transports):
            transport.abort()

    def come_back(self) -> None:
        """Accept connections again after `die`."""
        self.always = None

    async def _any(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = self.always
        if request.path == self.path:
            self.count += 1
            fault = fault or (self.faults.pop(0) if self.faults else self.forever)
        fault = fault or Fault()
        await asyncio.sleep(fault.wait)
        if fault.status:
            return web.Response(status=fault.status, text=fault.body, headers=fault.headers, content_type=fault.kind)
        if fault.then and fault.after == 0:
            await self._then(fault.then, request, None)
        assert request.transport is not None
        transport: asyncio.WriteTransport = request.transport
        self._transports.add(transport)
        self.open += 1
        try:
            return await self._pass(request, body, fault)
        finally:
            self.open -= 1
            self._transports.discard(transport)

    async def _pass(self, request: web.Request, body: bytes, fault: Fault) -> web.StreamResponse:
        assert self._client is not None
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "content-length", "accept-encoding", "connection")
        }
        url = self.upstream + request.path_qs
        async with self._client.request(request.method, url, data=body, headers=headers) as answer:
            reply = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await reply.prepare(request)
            seen, rest = 0, b""
            async for piece in answer.content.iter_any():
                *whole, rest = (rest + piece).split(b"\n\n")
                for event in whole:
                    await reply.write(event + b"\n\n")
                    seen += 1
                    if fault.then and seen >= fault.after and await self._then(fault.then, request, reply):
                        return reply
            await reply.write(rest)
            return reply

    async def _then(self, what: str, request: web.Request, reply: web.StreamResponse | None) -> bool:
        """Apply the failure `what` of a fault; return whether the answer ends here."""
        if what == "hang":
            await asyncio.Event().wait()
        if what == "damage" and reply is not None:
            await reply.write(b'data: {"text": "half of an ev\n\n')
            return True
        if what == "die":
            self.die()
        if what in ("reset", "die") and request.transport is not None:
            request.transport.abort()
            raise ConnectionResetError
        return True
