"""The choice of a display by its name."""

from __future__ import annotations

import sys
from typing import TextIO

from tts_tui.displays.base import Display, is_terminal, note
from tts_tui.errors import UsageError
from tts_tui.formatting import one_line
from tts_tui.tree.events import SearchFinished


class AnswerDisplay(Display):
    """The display called none: the answer alone, and why there is none on standard error."""

    def conclude(self, finished: SearchFinished | None) -> None:
        """Prints the answer, if there is one; says what went wrong, if anything did."""
        if finished is None:
            return
        if finished.answer is not None:
            text = one_line(finished.answer, len(finished.answer))
            self.guard(lambda: print(text, file=self.out))
        if finished.reason == "failed" or (finished.answer is None and finished.detail):
            note(one_line(finished.detail, 1000))


def make(name: str | None, out: TextIO | None = None, *, title: str = "") -> Display:
    """The display called `name`; None chooses live on a terminal and plain off it.

    Args:
        name: live, plain, json or none.
        out: Where to write; standard output by default.
        title: What the live display says beside the plan, such as the speed of a replay.

    Raises:
        UsageError: live was asked for where there is no terminal.
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
