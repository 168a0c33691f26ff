"""Scoring of finished steps in batches, while others are still being generated."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from itertools import count

from tts_tui.concurrency import concurrently
from tts_tui.errors import BackendBadResponse, BackendError, ContextExceeded, WrongServer
from tts_tui.protocols import Prompt, RewardModel, ScoreRequest, StepScore
from tts_tui.search.tasks import Stopped
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import Notice, ScoreFailed, StepScored
from tts_tui.tree.search_tree import Node


def request_for(prompt: Prompt, node: Node) -> ScoreRequest:
    """Return the request that scores the step of `node`, which must not be blank.

    Blank steps mean nothing to a PRM: their ids are added to the step before (or, at the very start, to the step
    after).
    """
    texts: list[str] = []
    ids: list[tuple[int, ...]] = []
    lead: tuple[int, ...] = ()
    for step in node.path:
        own = tuple(step.ids or ())
        if step.blank:
            if ids:
                ids[-1] += own
            else:
                lead += own
        else:
            texts.append(step.text)
            ids.append(lead + own)
            lead = ()
    return ScoreRequest(prompt, tuple(texts), tuple(ids))


class Scorer:
    """A queue of finished steps; all steps that are waiting are sent to the reward model as one batch.

    Args:
        prm: The reward model.
        prompt: The prompt of the search.
        journal: The event log, which receives the scores.
        attempts: Maximum number of attempts per batch.
        backoff: Seconds before the first retry; doubled for each further one.
        needed: Returns whether the search cannot decide without scores.

    Attributes:
        last_error: The last error that left steps without a score; empty if there was none.
    """

    def __init__(
        self,
        prm: RewardModel,
        prompt: Prompt,
        journal: EventLog,
        attempts: int,
        backoff: float,
        needed: Callable[[], bool],
    ) -> None:
        self._prm = prm
        self._prompt = prompt
        self._journal = journal
        self._attempts = attempts
        self._backoff = backoff
        self._needed = needed
        self._waiting: asyncio.Queue[Node] = asyncio.Queue()
        self._done: dict[int, asyncio.Future[None]] = {}
        self._said = self._scored = False
        self.last_error = ""

    def submit(self, node: Node) -> None:
        """Queue `node` for scoring; do nothing if it is blank, has a score, or was submitted before."""
        if node.score is None and not node.blank and node.id not in self._done:
            self._done[node.id] = asyncio.get_running_loop().create_future()
            self._waiting.put_nowait(node)

    async def score(self, node: Node) -> None:
        """Submit `node` and wait until it has its score, or cannot get one."""
        self.submit(node)
        if (done := self._done.get(node.id)) is not None:
            await asyncio.shield(done)  # shared by several callers, any of which may be cancelled

    async def run(self) -> None:
        """Score submitted steps until cancelled; then release all callers that wait for a score.

        Raises:
            Stopped: The reward model failed, and the search needs scores.
        """
        try:
            while True:
                batch = [await self._waiting.get()]
                while not self._waiting.empty():
                    batch.append(self._waiting.get_nowait())
                await self._score(batch)
                for node in batch:
                    self._settle(node.id)
        finally:
            for id in self._done:
                self._settle(id)

    def _settle(self, id: int) -> None:
        """Release the callers that wait for the score of a step."""
        if not self._done[id].done():
            self._done[id].set_result(None)

    async def _score(self, nodes: Sequence[Node]) -> None:
        """Score a batch, or give up on it after all attempts.

        Raises:
            Stopped: No step of the batch could be scored, and the search decides by scores.
        """
        error = await self._try(nodes)
        if error is None or not self._needed() or any(node.score is not None for node in nodes):
            return
        if isinstance(error, ContextExceeded) and self._scored:
            return  # this step is too long; others were not
        raise Stopped("failed", f"the steps can no longer be scored: {error}") from error

    async def _try(self, nodes: Sequence[Node], *, part: bool = False) -> BackendError | None:
        """Score steps, with retries, and return the last error that left some of them without a score, or None.

        Args:
            nodes: The steps.
            part: True if they are a part of a batch that was refused. A response that makes no sense is then not
                retried.
        """
        for attempt in count(1):
            try:
                scores = await self._scores([request_for(self._prompt, node) for node in nodes])
            except BackendError as error:
                nodes = self._without_scored(nodes, error)
                last = attempt >= self._attempts or (part and isinstance(error, BackendBadResponse))
                if len(nodes) > 1 and _may_be_one(error, last=last):
                    return await self._halves(nodes)
                retry = error.retryable and not last
                ids = tuple(node.id for node in nodes)
                self._journal.append(ScoreFailed(t=self._journal.now, nodes=ids, error=str(error), retry=retry))
                if not retry:
                    self.last_error = str(error)
                    return error
                await asyncio.sleep(self._backoff * 2 ** (attempt - 1))
            else:
                for node, score in zip(nodes, scores, strict=True):
                    self._write(node, score)
                return None
        raise AssertionError  # a count never ends

    async def _halves(self, nodes: Sequence[Node]) -> BackendError | None:
        """Score each half of a batch concurrently, so that one bad step does not leave the others without scores."""
        middle = len(nodes) // 2
        errors = await concurrently(self._try(half, part=True) for half in (nodes[:middle], nodes[middle:]))
        return next((error for error in reversed(errors) if error is not None), None)

    def _without_scored(self, nodes: Sequence[Node], error: BackendError) -> Sequence[Node]:
        """Record the scores that came with a failure; return the steps still unscored, or all if none is left."""
        for node, score in zip(nodes, error.scores, strict=False):
            if score is not None and 0.0 <= score.score <= 1.0:
                self._write(node, score)
        return [node for node in nodes if node.score is None] or nodes

    def _write(self, node: Node, score: StepScore) -> None:
        now = self._journal.now
        self._scored = True
        self._journal.append(
            StepScored(node.id, score.score, score.computed, score.cached, score.unseen, t=now),
        )
        self._settle(node.id)  # right away, without waiting for the rest of a batch that was refused
        if score.unseen and not self._said:
            self._said = True
            self._journal.append(
                Notice(
                    t=now,
                    message=f"the path to step {node.label} is longer than the {self._prm.info.context} tokens of the "
                    "reward model's context: from here on it is shown the question and the last steps that fit",
                )
            )

    async def _scores(self, requests: Sequence[ScoreRequest]) -> Sequence[StepScore]:
        try:
            scores = await self._prm.score(requests)
        except BackendError:
            raise
        except Exception as error:
            raise BackendBadResponse(f"the reward model failed: {type(error).__name__}: {error}") from error
        _check(requests, scores)
        return scores


def _may_be_one(error: BackendError, *, last: bool) -> bool:
    """Return whether the error may have been caused by a single step of the batch."""
    if isinstance(error, WrongServer):
        return False
    return not error.retryable or (last and isinstance(error, BackendBadResponse))


def _check(requests: Sequence[ScoreRequest], scores: Sequence[StepScore]) -> None:
    """Check that there are as many scores as steps, each in [0, 1]: a made-up score is worse than none.

    Raises:
        BackendBadResponse: There are not, or one is out of range.
    """
    if len(scores) != len(requests):
        raise BackendBadResponse(
            f"the reward model gave {len(scores)} scores for {len(requests)} steps, the first being "
            f"{requests[0].steps[-1]!r}"
        )
    for request, score in zip(requests, scores, strict=True):
        if not (math.isfinite(score.score) and 0.0 <= score.score <= 1.0):
            raise BackendBadResponse(
                f"the reward model gave {score.score} instead of a score in [0, 1] for the step {request.steps[-1]!r}"
            )
