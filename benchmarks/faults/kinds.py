"""Registry of faults, and the schedule that injects them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random
from typing import Any

from msgspec import Struct

from benchmarks.faults.stand_in import Event, Row
from benchmarks.faults.wire import Listener, Reply, Request

STREAMS = ("generate", "completions")
ANY = (*STREAMS, "score", "states", "talk")

Item = Event | bytes
"""An event, or bytes that are sent unchanged."""
END = b""
"""Marker that is sent instead of an event to end the stream at once, without its [DONE]."""


class Scene:
    """A request, with its healthy answer and the means to break it.

    Args:
        request: The request.
        reply: Response to write the answer to.
        draw: Random generator of this fault.
        listener: Port of the server.
        row: Cost of the request.
        events: Events of the healthy answer, if it is a stream.
        status: Status of the healthy answer, if it is not a stream.
        body: JSON of the healthy answer, if it is not a stream.
    """

    def __init__(
        self,
        request: Request,
        reply: Reply,
        draw: Random,
        listener: Listener,
        row: Row,
        events: AsyncIterator[Event] | None,
        status: int,
        body: Any,
    ) -> None:
        self.request, self.reply, self.draw, self.listener, self.row = request, reply, draw, listener, row
        self.events, self.status, self.body = events, status, body

    @property
    def words(self) -> str:
        """An error message that repeats the API key."""
        return f"the key {self.request.key} may not do that"

    async def send(self) -> None:
        """Send the healthy answer."""
        if self.events is None:
            await self.reply.whole(self.status, dumps(self.body))
        else:
            await self.stream(self.events)

    async def stream(self, items: AsyncIterator[Item]) -> None:
        """Send a stream."""
        await self.reply.stream()
        async for item in items:
            if item == END:
                return await self.reply.end()
            await self.reply.chunk(item if isinstance(item, bytes) else line(item))
        await self.reply.chunk(b"data: [DONE]\n\n")
        await self.reply.end()

    async def some(self, most: int = 5) -> None:
        """Send a random number of the first events of the healthy stream."""
        assert self.events is not None
        await self.reply.stream()
        for _ in range(self.draw.randint(0, most)):
            if (event := await anext(self.events, None)) is None:
                return
            await self.reply.chunk(line(event))


Apply = Callable[[Scene], Awaitable[None]]


class Kind(Struct, frozen=True):
    """A way to fail.

    Attributes:
        name: Name of the kind.
        targets: Targets of the requests that it can affect.
        apply: Function that answers a request in this way.
        harmless: Whether the client must understand the answer as if nothing were wrong.
        lies: Whether the token counts are made up.
    """

    name: str
    targets: tuple[str, ...]
    apply: Apply
    harmless: bool = False
    lies: bool = False


KINDS: dict[str, Kind] = {}
"""All kinds of faults by name."""


def kind(name: str, *targets: str, harmless: bool = False, lies: bool = False) -> Callable[[Apply], Apply]:
    """Register the decorated function as a kind of fault."""

    def register(apply: Apply) -> Apply:
        KINDS[name] = Kind(name, targets or ANY, apply, harmless, lies)
        return apply

    return register


Change = Callable[[AsyncIterator[Event], Scene], AsyncIterator[Item]]


def stream_kind(name: str, *targets: str, harmless: bool = False, lies: bool = False) -> Callable[[Change], Change]:
    """Register a transformation of a stream's events as a kind of fault."""

    def register(change: Change) -> Change:
        async def apply(scene: Scene) -> None:
            assert scene.events is not None
            await scene.stream(change(scene.events, scene))

        KINDS[name] = Kind(name, targets or STREAMS, apply, harmless, lies)
        return change

    return register


def line(event: Any) -> bytes:
    """Encode a value as a server-sent event."""
    return b"data: " + dumps(event) + b"\n\n"


def dumps(value: Any) -> bytes:
    """Encode JSON, with NaN and infinities as in Python's encoder; bytes are returned unchanged."""
    return value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


class Weather:
    """A schedule of the requests that meet a fault.

    Args:
        seed: Seed of the decisions, which are the same for the same request, counted by target.
        kinds: Faults to choose from.
        rate: Share of requests that meet a fault.

    Attributes:
        calm: Whether faults are switched off for now.
        counts: Number of injected faults by kind.
    """

    def __init__(self, seed: str, kinds: Sequence[Kind], rate: float) -> None:
        self.calm = True
        self.counts: Counter[str] = Counter()
        self._seed, self._rate = seed, rate
        self._asked: Counter[str] = Counter()
        self._kinds = {target: [kind for kind in kinds if target in kind.targets] for target in ANY}

    def next(self, target: str) -> tuple[Kind | None, Random]:
        """Return the fault of the next request for `target`, or None, and random numbers for it."""
        self._asked[target] += 1
        draw = Random(f"{self._seed} {target} {self._asked[target]}")
        # Requests of a search other than for steps and scores fail less often, since a search depends on them.
        rate = self._rate / 3 if target == "talk" else self._rate
        if self.calm or not self._kinds[target] or draw.random() >= rate:
            return None, draw
        found = draw.choice(self._kinds[target])
        self.counts[found.name] += 1
        return found, draw
