"""Which answers of a search mean the same although they are written differently: a union of canonical forms."""

from __future__ import annotations

from tts_tui.answers.canonical import canonical


class AnswerClasses:
    """Canonical forms, put together in pairs. Who was first stands for all that are joined to it."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def join(self, left: str, right: str) -> None:
        """From now on both answers have one key, that of `left`."""
        first, second = self.key(left), self.key(right)
        if first != second:
            self._above[second] = first

    def key(self, answer: str) -> str:
        """The same for all answers that mean the same; empty for an answer that says nothing."""
        form = canonical(answer)
        while form in self._above:
            form = self._above[form]
        return form
