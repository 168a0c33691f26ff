"""Before a vote: which answers mean the same although they are written differently. It becomes part of the events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tts_tui.events import AnswersMatched, Notice
from tts_tui.grading import Grader, is_simple
from tts_tui.journal import Journal
from tts_tui.tasks import Stopped
from tts_tui.tree import Node

SECONDS = 10.0
"""Time for all answers of a search."""
SECONDS_STOPPED = 3.0
"""The same of a search that was stopped: someone waits."""


async def settle(grader: Grader, journal: Journal, solutions: Sequence[Node], stopped: Stopped | None = None) -> None:
    """Finds out which answers of `solutions` mean the same, and writes it down.

    What the tree knows is not asked again, and answers that are plain numbers or words need no asking at all.

    Args:
        grader: Compares answers.
        journal: The search's.
        solutions: Those that vote.
        stopped: What ended the search early, if anything did.
    """
    answers: dict[str, str] = {}
    for node in solutions:
        if node.answer is not None:
            answers.setdefault(journal.tree.matching.key(node.answer), node.answer)
    if len(answers) < 2 or all(map(is_simple, answers)):
        return

    def found(left: str, right: str) -> None:
        journal.write(AnswersMatched(t=journal.now, left=left, right=right))

    seconds = SECONDS if stopped is None else SECONDS_STOPPED
    message = ""
    try:
        async with asyncio.timeout(seconds):
            await grader.group(list(answers.values()), found)
        message = grader.broken
    except TimeoutError:
        message = (
            f"not all answers could be compared within {seconds:g} s: some that mean the same may vote apart from "
            "each other"
        )
    if message and message not in journal.tree.notices:
        journal.write(Notice(t=journal.now, message=message))
