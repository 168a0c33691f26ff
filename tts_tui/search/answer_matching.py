"""Matching of equivalent answers before a vote.

Answers that mean the same although they are written differently are recorded as `AnswersMatched` events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import combinations

from tts_tui.answers.canonical import canonical
from tts_tui.answers.grading import Grader, is_simple
from tts_tui.search.tasks import Stopped
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import AnswersMatched, Notice
from tts_tui.tree.search_tree import Node, SearchTree

SECONDS = 30.0
"""Time limit in seconds for matching all answers of a search."""
SECONDS_STOPPED = 3.0
"""Time limit in seconds for a search that was stopped, where the user is waiting for the result."""


async def match_answers(
    grader: Grader, journal: EventLog, solutions: Sequence[Node], stopped: Stopped | None = None
) -> None:
    """Find the answers of `solutions` that mean the same, and record each match as an event.

    Matches that the tree already has are not computed again, and answers that are plain numbers or words are compared
    by their canonical forms alone. Pairs that stay without a verdict vote separately; a notice reports their number.

    Args:
        grader: The grader that compares answers.
        journal: The event log of the search.
        solutions: The solutions that vote.
        stopped: The reason why the search ended early, or None if it did not.
    """
    answers: dict[str, str] = {}
    for node in solutions:
        if node.answer is not None:
            answers.setdefault(journal.tree.matching.key(node.answer), node.answer)
    if len(answers) < 2 or all(map(is_simple, answers)):
        return

    def found(left: str, right: str) -> None:
        journal.append(AnswersMatched(t=journal.now, left=left, right=right))

    seconds = SECONDS if stopped is None else SECONDS_STOPPED
    try:
        async with asyncio.timeout(seconds):
            await grader.group(list(answers.values()), found)
        why = grader.broken or "comparing them took too much time or memory"
    except TimeoutError:
        why = f"there was no time for more than {seconds:g} s of it"
    if count := undecided(grader, journal.tree, solutions):
        pairs = "1 pair" if count == 1 else f"{count:,} pairs"
        message = f"{pairs} of answers could not be compared and vote apart from each other: {why}"
        if message not in journal.tree.notices:
            journal.append(Notice(t=journal.now, message=message))


def undecided(grader: Grader, tree: SearchTree, solutions: Sequence[Node]) -> int:
    """Return the number of pairs of answers that vote separately because they have no verdict.

    Answers that are known to mean the same count as one.
    """
    groups: dict[str, set[str]] = {}
    for node in solutions:
        if node.answer is not None:
            groups.setdefault(tree.matching.key(node.answer), set()).add(canonical(node.answer))
    groups.pop("", None)
    simple = {key: any(map(is_simple, forms)) for key, forms in groups.items()}
    return sum(
        not (simple[one] and simple[other])
        and all(grader.known(left, right) is None for left in groups[one] for right in groups[other])
        for one, other in combinations(groups, 2)
    )
