"""A stand-in server on a port, with faults injected into its answers."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from benchmarks.faults.kinds import Scene, Weather
from benchmarks.faults.stand_in import Row, StandIn
from benchmarks.faults.wire import Listener, Reply, Request


class Server:
    """A stand-in server. Use as an async context manager.

    Args:
        stand_in: Healthy answers of the server.
        weather: Schedule of the faults.

    Attributes:
        stand_in, weather: As passed to the constructor.
        listener: Port of the server.
    """

    def __init__(self, stand_in: StandIn, weather: Weather) -> None:
        self.stand_in, self.weather = stand_in, weather
        self.listener = Listener(self._handle)

    @property
    def url(self) -> str:
        """Address of the server."""
        return self.listener.url

    async def __aenter__(self) -> Self:
        await self.listener.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.listener.__aexit__(kind, error, trace)

    async def _handle(self, request: Request, reply: Reply) -> None:
        stand_in, row = self.stand_in, Row()
        reply.on_reset = row.inexact
        target = stand_in.target(request.path, request.json)
        fault, draw = self.weather.next(target)
        if target == "states":  # a search that is stopped leaves at once; of a stream it reads the last count
            reply.on_end = row.inexact
        if target != "talk":
            stand_in.rows.append(row)
        done = False
        try:
            if target in ("generate", "completions"):
                events = stand_in.events(request.path, request.json, row)
                scene = Scene(request, reply, draw, self.listener, row, events, 200, None)
            else:
                status, body = stand_in.reply(request.path, request.json, row)
                scene = Scene(request, reply, draw, self.listener, row, None, status, body)
            await (scene.send() if fault is None else fault.apply(scene))
            done = True
        finally:
            row.exact = row.exact and done and (fault is None or fault.harmless)
            row.bounded = row.bounded and not (fault is not None and fault.lies)


def told(rows: list[Row]) -> tuple[int, float]:
    """Return bounds of the number of tokens that a client may have counted for these requests."""
    low = sum(row.tokens for row in rows if row.exact)
    return low, sum(row.tokens for row in rows) if all(row.bounded for row in rows) else float("inf")
