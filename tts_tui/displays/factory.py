"""Creation of a display by its name."""

from __future__ import annotations

import sys
from typing import TextIO

from tts_tui.displays.base import Display, is_terminal, note
from tts_tui.errors import UsageError
from tts_tui.formatting import one_line
from tts_tui.tree.events import SearchFinished


class AnswerDisplay(Display):
    """The display called `none`: prints only the answer, or on standard error why there is none."""

    def conclude(self, finished: SearchFinished | None) -> None:
        """Print the answer, if there is one, and on standard error what went wrong, if anything did."""
        if finished is None:
            return
        if finished.answer is not None:
            text = one_line(finished.answer, len(finished.answer))
            self.guard(lambda: print(text, file=self.out))
        if finished.reason == "failed" or (finished.answer is None and finished.detail):
            note(one_line(finished.detail, 1000))


def make(name: str | None, out: TextIO | None = None, *, title: str = "") -> Display:
    """Return the display called `name`; None means live on a terminal and plain elsewhere.

    Args:
        name: live, plain, json or none.
        out: The output stream; standard output by default.
        title: Text that the live display shows next to the plan, such as the speed of a replay.

    Raises:
        UsageError: The live display was requested where there is no terminal.
    """
    out = out or sys.stdout
    if name == "live" and not is_terminal(out):
        raise UsageError("the live display needs a terminal to draw on: use --display plain, or json")
    name = name or ("live" if is_terminal(out) else "plain")
    if name == "live":
        from tts_tui.displays.live import LiveDisplay

        return LiveDisplay(out, title=title)
    if name == "plain":
        from tts_tui.displays.plain import PlainDisplay

        return PlainDisplay(out)
    if name == "json":
        from tts_tui.displays.json_lines import JsonDisplay

        return JsonDisplay(out)
    return AnswerDisplay(out)
