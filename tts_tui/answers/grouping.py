"""Grouping of equivalent answers by comparisons in pairs, some of which may stay without a verdict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tts_tui.answers.canonical import canonical
from tts_tui.answers.structure import is_simple
from tts_tui.concurrency import concurrently

Same = Callable[[str, str], Awaitable[bool | None]]
"""A function that returns whether two answers mean the same; None if there is no verdict."""
Found = Callable[[str, str], None]
"""A callback for each pair that means the same although its canonical forms differ."""


class Groups:
    """Groups of answers that mean the same.

    Two answers are in one group if a chain of equivalent pairs leads from one to the other. The groups therefore do not
    depend on the order of the answers, whichever pairs have no verdict.

    Args:
        answers: Answers as written. None and answers without content are in no group.
    """

    def __init__(self, answers: Sequence[str | None]) -> None:
        self._forms = [canonical(answer) if answer is not None else "" for answer in answers]
        # Distinct canonical forms, each with the first answer that has it.
        first: dict[str, str] = {}
        for form, answer in zip(self._forms, answers, strict=True):
            if form and answer is not None:
                first.setdefault(form, answer)
        self._answers = list(first.values())
        self._simple = [is_simple(form) for form in first]
        self._places = {form: place for place, form in enumerate(first)}
        # Positions of distinct forms by group; a group is identified by its first position.
        self._members: dict[int, list[int]] = {}
        self._different: set[tuple[int, int]] = set()

    @property
    def numbers(self) -> list[int]:
        """The group number of each answer, counted from 0 in order of first appearance; -1 if it is in no group."""
        number = {}
        for count, group in enumerate(sorted(self._members)):
            number.update(dict.fromkeys(self._members[group], count))
        return [number[self._places[form]] if form else -1 for form in self._forms]

    async def compare(self, same: Same, at_once: int, found: Found | None = None) -> None:
        """Compare the pairs that the groups depend on.

        Args:
            same: Compares two answers.
            at_once: Maximum number of concurrent comparisons.
            found: Called with each pair that means the same although its canonical forms differ.
        """
        for place in range(len(self._answers)):
            own = await self._home(place, same, at_once)
            self._members.setdefault(own[0] if own else place, []).append(place)
            for group in own[1:]:  # the new answer links these groups
                self._members[own[0]] += self._members.pop(group)
            if found is not None and own:
                for other in (place, *own[1:]):
                    found(self._answers[own[0]], self._answers[other])

    async def _home(self, place: int, same: Same, at_once: int) -> list[int]:
        """Return all groups that an answer belongs to, in order."""
        own: list[int] = []
        groups = sorted(self._members)
        while groups:
            some = [group for group in groups[:at_once] if not (own and self._differ(own[0], group))]
            groups = groups[at_once:]
            verdicts = await concurrently(self._belongs(place, group, same) for group in some)
            own += [group for group, verdict in zip(some, verdicts, strict=True) if verdict]
        return own

    async def _belongs(self, place: int, group: int, same: Same) -> bool | None:
        """Return whether an answer belongs to a group, by the first member with a verdict; None if there is none."""
        for member in self._members[group]:
            if self._simple[member] and self._simple[place]:
                return False
            verdict = await same(self._answers[member], self._answers[place])
            if verdict is False:
                self._different.add((member, place))
            if verdict is not None:
                return verdict
        return None

    def _differ(self, left: int, right: int) -> bool:
        """Return whether two groups are known to differ, so that no answer can be in both."""
        return any(
            (self._simple[one] and self._simple[other]) or (min(one, other), max(one, other)) in self._different
            for one in self._members[left]
            for other in self._members[right]
        )
