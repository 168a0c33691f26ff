"""What a policy on a server does when the server is overloaded or has gone: it waits, and asks again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress

from tts_tui.backends.dispatch import Dispatch
from tts_tui.contracts import Chunk
from tts_tui.errors import BackendError, BackendOverloaded, BackendUnavailable

OVERLOADS = 8
"""How often a request that met an overloaded server is sent again."""
AGAIN_SECONDS = 1.0


class Patience:
    """Sends requests, with patience.

    Args:
        dispatch: Told of overloads.
        alive: Asks the server something small; raises while it does not answer.
        seconds: How long a server that was there and is gone may take to come back.
    """

    def __init__(self, dispatch: Dispatch, alive: Callable[[], Awaitable[object]], seconds: float) -> None:
        self._dispatch = dispatch
        self._alive = alive
        self._seconds = seconds
        self._back: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Ends the wait for a server. Safe to call twice."""
        if self._back is not None:
            self._back.cancel()
            await asyncio.gather(self._back, return_exceptions=True)

    async def stream(self, send: Callable[[], AsyncGenerator[Chunk, None]]) -> AsyncGenerator[Chunk, None]:
        """The chunks of one request, which is sent again while the server is overloaded.

        Raises:
            BackendError: The request failed. If the server had gone, it is back now, or the patience is over.
        """
        for attempt in range(OVERLOADS + 1):
            begun = False
            try:
                async with aclosing(send()) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except BackendOverloaded as error:
                wait = self._dispatch.overloaded(error.retry_after)
                if begun or attempt == OVERLOADS:
                    raise
                await asyncio.sleep(wait)
            except BackendUnavailable as error:
                if error.retryable:  # another program behind the address will not become the right one
                    await self._until_back()
                raise

    async def _until_back(self) -> None:
        """Returns once a server that has gone answers again, or after the patience; many wait for one that asks."""
        if self._back is None or self._back.done():
            self._back = asyncio.create_task(self._ask())
        await asyncio.shield(self._back)

    async def _ask(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                while True:
                    with suppress(BackendError):
                        await self._alive()
                        return
                    await asyncio.sleep(AGAIN_SECONDS)
