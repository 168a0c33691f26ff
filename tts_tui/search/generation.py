"""Generation of steps by the policy: streaming, retries, and the scoring and merging of finished steps."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing

from msgspec.structs import replace

from tts_tui.answers.canonical import boxed, extract
from tts_tui.errors import BackendBadResponse, BackendError, BudgetExhausted, ContextExceeded
from tts_tui.plan import Plan
from tts_tui.protocols import Chunk, Finish, Policy, Prompt, StepRequest, Usage
from tts_tui.search.merging import Merger
from tts_tui.search.pausing import PauseGate
from tts_tui.search.scoring import Scorer
from tts_tui.search.slots import CHANGED, CUT, ENDED, SlotCancelled, SlotTask, StepDraft
from tts_tui.search.speculation import Spawn, SpeculativeStep, Speculator
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import WRITTEN, By, SolutionFound, StepFailed, StepFinished, StepStarted, StepStreamed
from tts_tui.tree.search_tree import Node

NOTHING = Usage()


class StepGenerator:
    """The generator of all steps of one search.

    Args:
        policy: The model that generates steps.
        prompt: The prompt that every path starts with.
        journal: The event log; its tree has the plan, with limits, sampling and separator.
        scorer: The scorer of finished steps; None if nothing is scored.
        attempts: Maximum number of attempts per step.
        backoff: Seconds before the first retry; doubled for each further one.
        spawn: Starts a task that ends with the search.

    Attributes:
        ahead: The speculator, which generates steps before the strategy requests them.
        gate: The gate that a strategy's steps pass before they start; closed while the search is paused.
        merger: The merger of identical siblings.
        last_error: The last model failure that made a step fail for good; empty if there was none.
        last_problem: The last reason why a step failed for good, including a full context; empty if there was none.
    """

    def __init__(
        self,
        policy: Policy,
        prompt: Prompt,
        journal: EventLog,
        scorer: Scorer | None,
        attempts: int,
        backoff: float,
        spawn: Spawn,
    ) -> None:
        self._policy = policy
        self._prompt = prompt
        self._journal = journal
        self._scorer = scorer
        self._attempts = attempts
        self._backoff = backoff
        self._session = journal.tree.start.run
        # A step is merged right after it is finished, so a killed process leaves this undecided for one step at most.
        self._unsettled = journal.tree.newest
        self._works: set[SlotTask] = set()
        self.ahead = Speculator(policy, journal, spawn, self._request, self._check_budget)
        self.gate = PauseGate()
        self.merger = Merger(journal)
        self.last_error = self.last_problem = ""

    @property
    def _plan(self) -> Plan:
        return self._journal.tree.plan

    def open_slot(self, parent: Node, by: By) -> SlotTask:
        """Return a new task for a slot of `parent`, to be passed to `generate_step` or `generate_rollout`."""
        work = SlotTask(parent, by)
        self._works.add(work)
        return work

    def end_cut(self) -> None:
        """Cancel all steps that are being generated at or below a node that a person cut."""
        for work in tuple(self._works):
            if self._journal.tree.is_cut(work.at):
                work.end(CUT)
        self.ahead.drop_if(self._journal.tree.is_cut)

    def end_strategy(self) -> None:
        """Cancel all steps that the strategy requested, and all speculative ones."""
        for work in tuple(self._works):
            if work.by == "strategy":
                work.end(CHANGED)
        self.ahead.forget()

    async def generate_step(self, work: SlotTask, slot: int, group: int, merge: bool, survivors: int) -> Node | None:
        """Return the finished and scored step in a slot: the recorded one if there is one, or else a new one.

        Args:
            work: The task for the slot, from `open_slot`.
            slot: The slot of the parent.
            group: The independent part of the search that the slot belongs to.
            merge: Merge the step with an identical sibling.
            survivors: Number of steps of this depth and group that the search will continue with, which allows
                speculation; 0 if that is not known.

        Returns:
            The node, or None if the step failed or was merged into a sibling.
        """
        node = self._journal.tree.at(work.at, slot, group)
        if node is not None:
            merge = merge and node is self._unsettled
        else:
            node = await self._try(work, work.at, slot, group, rollout=False)
        self._works.discard(work)
        if node is None:
            return None
        if merge and node.merged_into is None and (gone := self.merger.merge(node)) is not None:
            self.ahead.drop([gone])
        if node.merged_into is None:
            if self.gate.is_open:
                self.ahead.whole(node, survivors)
            await self.score_step(node)
            self.ahead.settled(node, survivors if self.gate.is_open else 0)
        return node if node.merged_into is None else None

    async def generate_rollout(self, work: SlotTask, slot: int, group: int) -> Node | None:
        """Return the last step of the rollout in a slot, continued from where a recording left it.

        Args:
            work: The task for the slot, from `open_slot`.
            slot: The slot of the parent.
            group: The independent part of the search that the slot belongs to.

        Returns:
            The last finished node, with all its steps scored, or None if not even one step was finished.
        """
        parent = work.at
        last = self._last(parent, slot, group)
        if last is None or not last.ended:
            await self._try(work, parent, slot, group, rollout=True)
            last = self._last(parent, slot, group)
        self._works.discard(work)
        if last is None:
            return None
        for node in last.path[parent.depth :]:  # one by one: their scores have been requested already
            await self.score_step(node)
        return last

    def insert(self, parent: Node, slot: int, text: str, ids: tuple[int, ...], finish: Finish) -> Node:
        """Add a step that a person wrote, at no cost in tokens, and return its node."""
        node = self._start(parent, slot, WRITTEN, by="person")
        event = StepFinished(t=self._journal.now, node=node.id, ids=ids, text=text, finish=finish, usage=NOTHING)
        self._journal.append(event)
        return node

    async def score_step(self, node: Node) -> None:
        """Complete a finished step: extract its answer if it ends one, and wait for its score. Safe to call again.

        Raises:
            BudgetExhausted: The budget is spent.
        """
        if node.merged_into is not None:
            return
        if node.terminal and not node.solved:
            self.record_solution(node)
        if self._scorer:
            await self._scorer.score(node)
        self._check_budget()

    def record_solution(self, node: Node) -> None:
        """Extract the answer from the path that ends with `node`, and record it as a solution."""
        answer = extract(node.path_text, finished=node.terminal)
        self._journal.append(SolutionFound(t=self._journal.now, node=node.id, answer=answer))

    # -- state of a rollout ------------------------------------------------------------------------------------------

    def _last(self, parent: Node, slot: int, group: int) -> Node | None:
        """Return the last finished step of a rollout; None if it has none."""
        last = None
        node = self._journal.tree.at(parent, slot, group)
        while node is not None and node.state == "done":
            last = node
            node = self._journal.tree.at(node, 0, group)
        return last

    # -- generation --------------------------------------------------------------------------------------------------

    async def _try(self, work: SlotTask, parent: Node, slot: int, group: int, *, rollout: bool) -> Node | None:
        """Fill a slot, with retries; return None if all attempts failed or the slot was cancelled meanwhile."""
        work.begin()
        try:
            for attempt in range(1, self._attempts + 1):
                last = self._last(parent, slot, group) if rollout else None
                origin, place = (parent, slot) if last is None else (last, 0)
                work.at = origin
                if work.ended or self._journal.tree.closed(origin, place, group):
                    return None
                if work.by == "strategy":
                    await self.gate.wait()
                early = None if rollout else self.ahead.take(origin, place, group)
                draft = StepDraft(self._start(origin, place, group, early.head if early else NOTHING, work.by), work)
                try:
                    return await self._write(draft, early, attempt, rollout)
                except BackendError as error:
                    if not await self._again(error, attempt):
                        return None
        except asyncio.CancelledError:
            if not work.forgive():
                raise
        except SlotCancelled:
            work.forgive()
        finally:
            self._works.discard(work)
        return None

    async def _again(self, error: BackendError, attempt: int) -> bool:
        """Return whether to retry a failed step, after waiting for the backoff if so."""
        if error.retryable and attempt < self._attempts:
            await asyncio.sleep(self._backoff * 2 ** (attempt - 1))
            return True
        self.last_problem = str(error)
        if not isinstance(error, ContextExceeded):
            self.last_error = str(error)
        return False

    def _start(self, parent: Node, slot: int, group: int, ahead: Usage = NOTHING, by: By = "strategy") -> Node:
        tree = self._journal.tree
        number = len(tree.nodes)
        self._journal.append(
            StepStarted(t=self._journal.now, node=number, parent=parent.id, slot=slot, group=group, ahead=ahead, by=by)
        )
        return tree.nodes[number]  # not the last node: listeners may have begun others by now

    async def _write(self, draft: StepDraft, early: SpeculativeStep | None, attempt: int, rollout: bool) -> Node:
        """Stream into `draft` and return the last step; in a rollout, every step end begins a new node."""
        try:
            if early is not None:
                finish = await self._read_early(draft, early)
            else:
                finish = await self._read(draft, attempt, rollout)
        except BackendError as error:
            self._fail(draft, str(error), retry=error.retryable and attempt < self._attempts)
            raise
        except (BudgetExhausted, asyncio.CancelledError, SlotCancelled):
            self._fail(draft, draft.work.ended or ENDED, retry=False)
            raise
        except Exception as error:
            broken = BackendBadResponse(f"the policy failed: {type(error).__name__}: {error}")
            self._fail(draft, str(broken), retry=attempt < self._attempts)
            raise broken from error
        self._finish(draft, finish if rollout else self._ending(finish, draft.text))
        return draft.node

    async def _read(self, draft: StepDraft, attempt: int, rollout: bool) -> Finish:
        assert draft.node.parent is not None
        draft.work.check()
        request = self._request(draft.node.parent, draft.node.slot, draft.node.group, attempt, rollout)
        async with aclosing(self._policy.stream(replace(request, late=draft.spend))) as chunks:
            async for chunk in chunks:
                self._take(draft, chunk, chunk.usage)
                if chunk.finish:
                    return chunk.finish
                if rollout and chunk.step_end and draft.text.strip():
                    await self._next(draft)
                self._check_budget()  # not earlier: a finished step is kept, whatever it cost
        raise BackendBadResponse("the policy's stream ended without saying why")

    async def _next(self, draft: StepDraft) -> None:
        """Finish the current step of a rollout and begin the next one."""
        self._finish(draft, "step")
        if self._scorer:
            self._scorer.submit(draft.node)  # scored while the next step is generated
        draft.work.check()
        if draft.work.by == "strategy":
            await self.gate.wait()
        draft.begin(self._start(draft.node, 0, draft.node.group, by=draft.work.by))
        draft.work.check()

    async def _read_early(self, draft: StepDraft, early: SpeculativeStep) -> Finish:
        """Read the stream of a step that was begun speculatively, and charge it to `draft` from now on."""
        early.claim(draft.spend)
        try:
            draft.work.check()
            while (item := await early.read()) is not None:
                chunk, counted = item
                self._take(draft, chunk, NOTHING if counted else chunk.usage)
                if chunk.finish:
                    return chunk.finish
                self._check_budget()
        finally:
            try:
                await early.close()
            finally:
                draft.spend(early.rest())
        raise BackendBadResponse("the policy's stream ended without saying why")

    def _take(self, draft: StepDraft, chunk: Chunk, usage: Usage) -> None:
        draft.add(chunk)
        self._journal.append(StepStreamed(t=self._journal.now, node=draft.node.id, text=chunk.text, usage=usage))
        draft.work.check()

    def _ending(self, finish: Finish, text: str) -> Finish:
        """Return "boxed" instead of "step" if the text has a box: the paper's code ends the answer there."""
        official = self._plan.variant == "paper"
        return "boxed" if finish == "step" and official and boxed(text) is not None else finish

    def _request(self, parent: Node, slot: int, group: int, attempt: int = 1, rollout: bool = False) -> StepRequest:
        """Return the request that fills a slot.

        Raises:
            ContextExceeded: The path has reached the plan's `total_tokens`.
        """
        path = parent.path_ids
        left = self._plan.total_tokens - len(path)
        if left <= 0:
            raise ContextExceeded(f"the path has its {self._plan.total_tokens} tokens: raise total_tokens in the plan")
        address = [*((step.group, step.slot) for step in parent.path), (group, slot)]
        return StepRequest(
            ids=(*self._prompt.ids, *path),
            sampling=self._plan.sampling,
            max_tokens=left if rollout else min(left, self._plan.step_tokens),
            separator=self._plan.separator,
            rollout=rollout,
            seed=step_seed(self._plan.seed, address, attempt),
            session=self._session,
        )

    def _finish(self, draft: StepDraft, finish: Finish) -> None:
        self._journal.append(
            StepFinished(
                t=self._journal.now,
                node=draft.node.id,
                ids=tuple(draft.ids),
                text=draft.text,
                finish=finish,
                usage=draft.usage,
            )
        )

    def _fail(self, draft: StepDraft, error: str, *, retry: bool) -> None:
        self._journal.append(
            StepFailed(t=self._journal.now, node=draft.node.id, error=error, retry=retry, usage=draft.usage)
        )

    def _check_budget(self) -> None:
        budget = self._plan.budget
        if budget.tokens is None and budget.flops is None:
            return
        start = self._journal.tree.start
        if overrun := budget.overrun(self._journal.tree.counts, start.policy, start.prm):
            raise BudgetExhausted(overrun)


def step_seed(seed: int, address: list[tuple[int, int]], attempt: int = 1) -> int:
    """Return a seed that depends on the position of a step in the tree, and not on when it is generated.

    Args:
        seed: The seed of the plan.
        address: (group, slot) of every step of the path, the new one last.
        attempt: Number of this attempt, from 1.
    """
    digest = hashlib.blake2b(repr((seed, address, attempt)).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "big") >> 1
