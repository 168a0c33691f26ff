"""Checks that must hold for every search, whatever its servers did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from msgspec import Struct

from tts_tui import Result, SearchTree, load, read
from tts_tui.errors import TTSError
from tts_tui.protocols import Usage
from tts_tui.tree.events import AnyEvent, Notice, Reason, ScoreFailed, StepFailed, encode
from tts_tui.tree.node import Node

LOST, HUNG, LEFT, WRONG, LEAKED, RAW = "lost", "hung", "left", "ended wrongly", "key leaked", "unexplained"
BARS = (LOST, HUNG, LEFT, WRONG, LEAKED, RAW)
LONGEST = 2000
"""Maximum length of an error message in characters."""


class Finding(Struct, frozen=True):
    """A violated promise.

    Attributes:
        bar: The bar of `BARS` that it counts for.
        what: Description of the violation, as a sentence.
    """

    bar: str
    what: str


def picture(tree: SearchTree) -> Any:
    """Reduce a tree to plain values that can be compared."""
    nodes = [[_plain(getattr(node, name)) for name in Node.__slots__] for node in tree.nodes]
    more = [node.id for node in tree.solutions], tree.notices, tree.choices, tree.plan, tree.seconds, tree.ahead
    return nodes, tree.counts.as_tuple(), more, tree.finished and encode(tree.finished)


def _plain(value: Any) -> Any:
    if isinstance(value, Node):
        return value.id
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if value is None else list(value) if hasattr(value, "itemsize") else value


def recording(path: Path, live: SearchTree, events: Sequence[AnyEvent]) -> Iterable[Finding]:
    """Check that a recording holds the events of a search and replays into its live tree."""
    try:
        seen, replayed = [encode(event) for event in read(path)], load(path)
    except TTSError as error:
        yield Finding(LOST, f"the recording does not open: {error}")
        return
    if seen != [encode(event) for event in events]:
        yield Finding(LOST, f"{len(seen)} events are recorded and {len(events)} were told")
    if picture(replayed) != picture(live):
        yield Finding(LOST, "the replay of the recording differs from the live tree")
    for notice in (event.message for event in events if isinstance(event, Notice)):
        if "recording stopped" in notice or "listener failed" in notice:
            yield Finding(LOST, f"a notice says: {notice}")


def counts(result: Result) -> Iterable[Finding]:
    """Check that the tokens of a search add up."""
    tree, tokens = result.tree, result.finished.tokens
    policy, prm = tokens.policy, tokens.prm
    said = (policy.prompt_computed, policy.prompt_cached, policy.completion, prm.computed, prm.cached)
    if said != tree.counts.as_tuple():
        yield Finding(LOST, f"the last event tells of {said} tokens and the tree of {tree.counts.as_tuple()}")
    summed = sum((node.usage or Usage() for node in tree.nodes), tree.ahead)
    summed = sum((choice.usage for choice in tree.choices), summed)
    if (summed.prompt_computed, summed.prompt_cached, summed.completion) != said[:3]:
        yield Finding(LOST, f"the steps add up to {summed}, and the search to {said[:3]}")
    if min(said) < 0:
        yield Finding(WRONG, f"a count of tokens is negative: {said}")


def ending(result: Result) -> Iterable[Finding]:
    """Check how a search ended: no open steps, and an answer that its solutions give."""
    tree, finished = result.tree, result.finished
    if tree.finished != finished:
        yield Finding(WRONG, "the result is not the last event of the tree")
    if finished.reason not in get_args(Reason):
        yield Finding(WRONG, f"it ended for a reason that there is not: {finished.reason}")
    if opened := [node.id for node in tree.nodes if node.state == "writing"]:
        yield Finding(WRONG, f"steps {opened} are open at the end")
    solutions = {node.id for node in tree.solutions}
    key = tree.matching.key
    for vote in finished.votes:
        given = {key(tree.nodes[id].answer or "") for id in vote.solutions}
        if not set(vote.solutions) <= solutions or given != {key(vote.answer)}:
            yield Finding(WRONG, f"the votes for {vote.answer!r} are not of solutions that say so")
    if (finished.answer is None) != (not finished.votes) or (finished.answer is None) != (finished.node is None):
        yield Finding(WRONG, f"its answer {finished.answer!r} does not go with its votes")
    if finished.answer is not None and (
        finished.node not in solutions or key(tree.nodes[finished.node].answer or "") != key(finished.answer)
    ):
        yield Finding(WRONG, f"its answer {finished.answer!r} is not among its solutions")
    if finished.reason == "solved" and finished.answer is None:
        yield Finding(WRONG, "it is solved, and has no answer")
    scores = [node.score for node in tree.nodes if node.score is not None]
    if not all(0 <= score <= 1 for score in scores):
        yield Finding(WRONG, f"a score is not in [0, 1]: {[score for score in scores if not 0 <= score <= 1]}")


def sentences(said: Iterable[str]) -> Iterable[Finding]:
    """Check that error messages are single sentences, provided by a backend."""
    for text in dict.fromkeys(said):
        if any(mark in text for mark in ("Traceback", " at 0x", "\n", "\r", "\0")) or len(text) > LONGEST:
            yield Finding(WRONG, f"this is no sentence: {text[:300]!r}")
        if any(mark in text for mark in ("the policy failed: ", "the reward model failed: ", "the search failed: ")):
            yield Finding(RAW, f"no backend explained it: {text[:300]}")


def failures(events: Iterable[AnyEvent]) -> list[str]:
    """List the error messages of a search."""
    return [event.error for event in events if isinstance(event, StepFailed | ScoreFailed)]


def leaks(key: str, where: str, data: bytes | str) -> Iterable[Finding]:
    """Check that a text holds neither the API key nor half of it."""
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    half = len(key) // 2
    for part in (key[:half], key[half:]):
        if (place := text.find(part)) >= 0:
            yield Finding(LEAKED, f"{where} holds it: …{text[max(0, place - 120) : place]}<KEY>…")
            return
