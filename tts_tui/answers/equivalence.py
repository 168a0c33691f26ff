"""Classes of answers that mean the same although they are written differently: unions of canonical forms."""

from __future__ import annotations

from tts_tui.answers.canonical import canonical


class AnswerClasses:
    """Equivalence classes of canonical forms, joined in pairs.

    The form on the left of a join represents all forms that are joined to it.
    """

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def join(self, left: str, right: str) -> None:
        """Join the classes of two answers; both have the key of `left` from now on."""
        first, second = self.key(left), self.key(right)
        if first != second:
            self._above[second] = first

    def key(self, answer: str) -> str:
        """Return the key of an answer's class, equal for all answers in it; empty if the answer has no content."""
        form = canonical(answer)
        while form in self._above:
            form = self._above[form]
        return form
