"""What a model on a server does when the server is overloaded or has gone: it waits, and asks again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import TypeVar

from tts_tui.backends.remote.dispatcher import Dispatcher
from tts_tui.errors import BackendError, BackendOverloaded, BackendUnavailable

OVERLOADS = 8
"""How often a request that met an overloaded server is sent again."""
AGAIN_SECONDS = 1.0

T = TypeVar("T")


class ReconnectPolicy:
    """Sends requests, with patience.

    Args:
        dispatch: Told of overloads.
        alive: Asks the server something small; raises while it does not answer.
        seconds: How long a server that was there and is gone may take to come back.
    """

    def __init__(self, dispatch: Dispatcher, alive: Callable[[], Awaitable[object]], seconds: float) -> None:
        self._dispatch = dispatch
        self._alive = alive
        self._seconds = seconds
        self._back: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Ends the wait for a server. Safe to call twice."""
        if self._back is not None:
            self._back.cancel()
            await asyncio.gather(self._back, return_exceptions=True)

    async def ask(self, send: Callable[[], Awaitable[T]]) -> T:
        """The answer to one request that is no stream; see `stream`."""

        async def whole() -> AsyncGenerator[T, None]:
            yield await send()

        async with aclosing(self.stream(whole)) as answers:
            return await anext(answers)

    async def stream(self, send: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """The parts of the answer to one request, which is sent again while the server is overloaded.

        Raises:
            BackendError: The request failed. If the server has gone, the next one waits until it is back, or until
                the patience is over.
        """
        if self._back is not None:  # whoever met the silence first has told of it; the others wait for its end
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
                # Another program behind the address will not become the right one.
                if error.retryable and self._back is None:
                    self._back = asyncio.create_task(self._ask())
                raise

    async def _ask(self) -> None:
        """Returns once a server that has gone answers again, or after the patience; that is not begun a second time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                while True:
                    with suppress(BackendError):
                        await self._alive()
                        return
                    await asyncio.sleep(AGAIN_SECONDS)
