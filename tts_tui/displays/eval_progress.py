"""The progress of an evaluation on standard error: one updating line on a terminal, a few lines elsewhere."""

from __future__ import annotations

import shutil
from time import monotonic
from types import TracebackType
from typing import Self, TextIO

from tts_tui.displays.base import is_terminal
from tts_tui.evaluation.runner import EvalStatus
from tts_tui.formatting import bar, one_line, plural, short

_SILENCE = 60.0
"""Longest time between lines while searches end, in seconds, if the output is not a terminal."""
_STEPS = 20
"""Minimum number of lines of an evaluation with at least that many searches, if the output is not a terminal."""


class EvalProgress:
    """A display of the status of an evaluation.

    Args:
        out: The output stream.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._drawn = is_terminal(out)
        self._open = False
        self._shown = -1
        self._when = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the line that is being updated."""
        if self._open:
            self._write("\n")
            self._open = False

    def __call__(self, standing: EvalStatus) -> None:
        """Show a status, if it is worth a line."""
        if self._drawn:
            width = shutil.get_terminal_size((100, 24)).columns - 1
            self._write(f"\r\x1b[K{one_line(said(standing), width)}")
            self._open = True
        elif standing.newest is not None and self._is_due(standing):
            self._write(f"tts-tui: {said(standing, drawn=False)}\n")
            self._shown, self._when = standing.done * _STEPS // standing.total, monotonic()

    def _is_due(self, standing: EvalStatus) -> bool:
        further = standing.done * _STEPS // standing.total > self._shown
        return further or standing.done == standing.total or monotonic() - self._when > _SILENCE

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except OSError:
            return


def said(standing: EvalStatus, *, drawn: bool = True) -> str:
    """Return a status in one line: the share done, the time left, and the number of correct answers per plan."""
    parts = [f"{standing.done}/{standing.total}"]
    if drawn:
        parts = [f"{bar(standing.done / standing.total, 10)} {parts[0]}"]
    if standing.done < standing.total:
        parts.append(time_left(standing.left))
    if standing.rate is not None:
        parts.append(f"{short(standing.rate)} tokens/s")
    if standing.failed:
        parts.append(f"{standing.failed} failed")
    parts += [f"{name} {plan.right}/{plan.done} right" for name, plan in standing.plans.items() if plan.done]
    return " · ".join(parts)


def time_left(left: tuple[float, float] | None) -> str:
    """Return the remaining time, e.g. `3–5 min left`."""
    return "time left unknown yet" if left is None else f"{span(left)} left"


def span(seconds: tuple[float, float]) -> str:
    """Return a range of seconds as `3–5 min`, or as `about 4 min` if both ends are the same."""
    low, high = seconds
    size, unit = (1, "s") if high < 100 else (60, "min") if high < 100 * 60 else (3600, "h")
    ends = [f"{end / size:.1f}" if unit == "h" and high < 36000 else f"{end / size:.0f}" for end in (low, high)]
    if ends[0] == ends[1]:
        return f"about {ends[1]} {unit}"
    return f"{ends[0]}–{ends[1]} {unit}"


def opening(problems: int, plans: int, pending: int, samples: int) -> str:
    """Return a sentence about the size of an evaluation, to show before it starts."""
    total = problems * plans
    done = f", {total - pending:,} of them done" if pending < total else ""
    sentence = f"{plural(problems, 'problem')} × {plural(plans, 'plan')} = {_searches(total)}{done}"
    return f"{sentence}; up to {plural(samples, 'sample')} to come" if pending else f"{sentence}: nothing is left to do"


def _searches(number: int) -> str:
    return "1 search" if number == 1 else f"{number:,} searches"
