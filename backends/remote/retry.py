"""Retries for requests to a server that is overloaded or has become unreachable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import TypeVar

from tts_tui.backends.remote.dispatcher import Dispatcher
from tts_tui.errors import BackendError, BackendOverloaded, BackendUnavailable

OVERLOADS = 8
"""Maximum number of retries of a request while the server is overloaded."""
AGAIN_SECONDS = 1.0
"""Seconds between two checks of whether an unreachable server is back."""

T = TypeVar("T")


class ReconnectPolicy:
    """A policy for retrying requests while a server is overloaded, and for waiting until an unreachable one is back.

    Args:
        dispatch: The dispatcher that is notified of overloads.
        alive: Sends a small request to the server; raises a `BackendError` while the server does not answer.
        seconds: Maximum seconds to wait for a server that was reachable before to come back.
    """

    def __init__(self, dispatch: Dispatcher, alive: Callable[[], Awaitable[object]], seconds: float) -> None:
        self._dispatch = dispatch
        self._alive = alive
        self._seconds = seconds
        self._back: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Stop waiting for the server. Safe to call twice."""
        if self._back is not None:
            self._back.cancel()
            await asyncio.gather(self._back, return_exceptions=True)

    async def ask(self, send: Callable[[], Awaitable[T]]) -> T:
        """Send one request that is not a stream, and return its reply; retries as `stream` does."""

        async def whole() -> AsyncGenerator[T, None]:
            yield await send()

        async with aclosing(self.stream(whole)) as answers:
            return await anext(answers)

    async def stream(self, send: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """Yield the parts of the reply to one request, which is sent again while the server is overloaded.

        Raises:
            BackendError: The request failed. If the server has become unreachable, the next request waits until it is
                back, or until the time for that is over.
        """
        if self._back is not None:  # the first request to fail has raised; later ones wait for the server
            await asyncio.shield(self._back)
        for attempt in range(OVERLOADS + 1):
            begun = False
            try:
                async with aclosing(send()) as parts:
                    async for part in parts:
                        begun = True
                        if self._back is not None and self._back.done():
                            self._back = None
                        yield part
                return
            except BackendOverloaded as error:
                wait = self._dispatch.overloaded(error.retry_after)
                if begun or attempt == OVERLOADS:
                    raise
                await asyncio.sleep(wait)
            except BackendUnavailable as error:
                # If another program answers at the address, waiting does not help.
                if error.retryable and self._back is None:
                    self._back = asyncio.create_task(self._ask())
                raise

    async def _ask(self) -> None:
        """Wait until an unreachable server answers again, or until the time is over; it does not start again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                while True:
                    with suppress(BackendError):
                        await self._alive()
                        return
                    await asyncio.sleep(AGAIN_SECONDS)
