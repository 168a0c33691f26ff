"""How far an evaluation is, on standard error: one line that is rewritten on a terminal, few lines off it."""

from __future__ import annotations

import shutil
from time import monotonic
from types import TracebackType
from typing import Self, TextIO

from tts_tui.displays.base import is_terminal
from tts_tui.evaluation.runner import EvalStatus
from tts_tui.formatting import bar, one_line, plural, short

_SILENCE = 60.0
"""Longest wait for a line off a terminal, in seconds, while searches end."""
_STEPS = 20
"""Lines off a terminal that an evaluation has at least, if it has as many searches."""


class EvalProgress:
    """Shows standings of an evaluation.

    Args:
        out: Where to write.
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
        """Ends the line."""
        if self._open:
            self._write("\n")
            self._open = False

    def __call__(self, standing: EvalStatus) -> None:
        """Shows one, if it is worth a line."""
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
    """A standing in one line: how much is done, how much longer it takes, how many are right."""
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
    """`3–5 min left`."""
    return "time left unknown yet" if left is None else f"{span(left)} left"


def span(seconds: tuple[float, float]) -> str:
    """`3–5 min`; `about 4 min` where both ends are the same."""
    low, high = seconds
    size, unit = (1, "s") if high < 100 else (60, "min") if high < 100 * 60 else (3600, "h")
    ends = [f"{end / size:.1f}" if unit == "h" and high < 36000 else f"{end / size:.0f}" for end in (low, high)]
    if ends[0] == ends[1]:
        return f"about {ends[1]} {unit}"
    return f"{ends[0]}–{ends[1]} {unit}"


def opening(problems: int, plans: int, pending: int, samples: int) -> str:
    """What an evaluation will cost, before it begins."""
    total = problems * plans
    done = f", {total - pending:,} of them done" if pending < total else ""
    sentence = f"{plural(problems, 'problem')} × {plural(plans, 'plan')} = {_searches(total)}{done}"
    return f"{sentence}; up to {plural(samples, 'sample')} to come" if pending else f"{sentence}: nothing is left to do"


def _searches(number: int) -> str:
    return "1 search" if number == 1 else f"{number:,} searches"
