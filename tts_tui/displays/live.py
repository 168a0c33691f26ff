"""The live display: the tree, drawn with rich while it grows.

It pulls: events only change the tree, and a timer repaints it. The work per frame is bounded by the screen.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tts_tui.displays import phrases
from tts_tui.displays.base import Display, note
from tts_tui.displays.frame import BOLD, Moment, frame
from tts_tui.displays.live_metrics import Rate, Votes
from tts_tui.formatting import one_line
from tts_tui.tree.events import SearchFinished

FRAMES = 8.0
"""Number of repaints per second."""
_RESTORE = b"\x1b[?1049l\x1b[?25h\x1b[0m\r\n"
"""Escape codes that leave the alternate screen, show the cursor and reset all styles."""


class LiveDisplay(Display):
    """A display that draws the growing tree on the alternate screen, and leaves the last frame and the answer behind.

    Args:
        out: The terminal.
        title: Text shown next to the plan.
        console: Another console than the terminal's, for tests.
    """

    talks = True

    def __init__(self, out: TextIO, *, title: str = "", console: Console | None = None) -> None:
        super().__init__(out)
        self.console = console or Console(file=out, highlight=False, markup=False, emoji=False)
        self._unicode = (getattr(out, "encoding", None) or "utf-8").lower().startswith("utf")
        self._title = title
        self._votes = Votes()
        self._written, self._scored = Rate(), Rate()
        self._tick = 0
        self._live: Live | None = None
        self._warnings: list[str] = []
        self._painter: asyncio.Task[None] | None = None

    def picture(self, height: int | None = None) -> list[Text]:
        """Return the current frame, drawn for the terminal's present size."""
        width, lines = self.console.size
        self._tick += 1
        moment = Moment(
            written=self._written.at(self.tree.seconds, self.tree.counts.completion),
            scored=self._scored.at(self.tree.seconds, self.tree.counts.prm_computed),
            tick=self._tick,
            title=self._title,
            votes=self._votes.of(self.tree),
            unicode=self._unicode,
        )
        return frame(self.tree, self.writing, width, height or lines, moment)

    async def __aenter__(self) -> Self:
        self._painter = asyncio.create_task(self._paint(), name="live display")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._painter is not None:
                self._painter.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._painter
        finally:
            if self._live is not None:
                self.guard(self._live.stop)
                self._live = None
            for message in self._warnings:
                note(message)

    async def _paint(self) -> None:
        try:
            while True:
                if self.tree.started is not None:
                    self.guard(self._repaint)
                await asyncio.sleep(1 / FRAMES)
        except Exception:
            self.on_closed()  # the search is no longer visible; the error is reported when the display is left
            raise

    def warn(self, message: str) -> None:
        """Report a loss after the alternate screen is left: until then the message would be drawn over."""
        if self._live is None:
            note(message)
        else:
            self._warnings.append(message)

    def _repaint(self) -> None:
        if self._live is None:  # not earlier: messages of loading models belong on the normal screen
            self._live = Live(
                console=self.console,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._live.start()
        self._live.update(Group(*self.picture()), refresh=True)

    def conclude(self, finished: SearchFinished | None) -> None:
        """Print the last frame, then the answer and the costs, on the normal screen."""
        self.guard(lambda: self._conclude(finished))

    def _conclude(self, finished: SearchFinished | None) -> None:
        said = list(phrases.closing(finished)) if finished is not None else [phrases.CUT_OFF]
        said += [f"Note: {one_line(notice)}" for notice in self.tree.notices]
        # The height of the picture leaves room for the text below it on the same screen.
        for line in self.picture(max(4, self.console.size.height - len(said) - 3)):
            self.console.print(line)
        for number, sentence in enumerate(said):
            self.console.print(Text(sentence, style=BOLD if number == 0 else ""))

    def restore(self) -> None:
        """Restore the terminal by writing to it directly, because rich may be in the middle of a frame."""
        if self._live is not None:
            with contextlib.suppress(OSError, ValueError):
                os.write(self.out.fileno(), _RESTORE)
