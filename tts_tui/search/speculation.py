"""Speculative generation: the likely survivors of a round are continued while the round is still undecided.

A round of a beam search waits for its slowest step and for scores. Meanwhile the other steps need not be idle: as soon
as one is finished its first child is begun, and once it is scored, if it is among the best so far, the other children
too. A speculative child is an independent sample of the same policy under the same prefix, like any other. If its
parent is pruned, the child is cancelled and its tokens are counted as unused.

Strategies notice only the time saved: a step enters the tree when it is requested, with the text generated so far.

A child is a request of its own, not the parent's stream continued beyond its separator: a server shares the tokens of
a stream only once that has ended, so the other children would each compute the parent's step again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from msgspec.structs import replace

from tts_tui.errors import BudgetExhausted, ContextExceeded
from tts_tui.plan import Plan
from tts_tui.protocols import Chunk, Claim, HasSpareCapacity, Policy, StepRequest, Usage
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import SpeculativeTokens
from tts_tui.tree.search_tree import Node

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class SpeculativeStep:
    """A step that is generated before the strategy requests it.

    Args:
        policy: The model that generates steps.
        request: The request for the step.
        count: Called with the usage of each chunk until the step is claimed.
        check: Called after `count`; raises if the budget is spent.

    Attributes:
        head: Usage of the chunks that were generated, and counted, before the step was claimed.
        began: True once the request was passed to the policy.
    """

    def __init__(
        self, policy: Policy, request: StepRequest, count: Callable[[Usage], None], check: Callable[[], None]
    ) -> None:
        self.head = Usage()
        self.began = False
        self._claim = Claim()
        self._chunks = policy.stream(replace(request, claim=self._claim, late=self._late))
        self._spend: Callable[[Usage], None] = count
        self._check = check
        self._taken = False
        self._buffer: deque[tuple[Chunk, bool]] = deque()
        self._arrived = asyncio.Event()
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, spawn: Spawn) -> None:
        """Start the generation in a task of the search."""
        self._task = spawn(self._write())

    def claim(self, spend: Callable[[Usage], None]) -> None:
        """Hand this step over to the search: from now on its tokens are charged to the step.

        Args:
            spend: Called with the usage of tokens that arrive after the last chunk.
        """
        self._taken, self._spend = True, spend
        self._claim.make()

    @property
    def failed(self) -> bool:
        """True if the generation has failed."""
        return self._error is not None

    async def read(self) -> tuple[Chunk, bool] | None:
        """Return the next chunk, and whether it was counted before the step was claimed; None at the end.

        Raises:
            Exception: The generation failed; the policy's exception.
        """
        while not self._buffer:
            if self._error is not None:
                raise self._error
            if self._task is None or self._task.done():
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._buffer.popleft()

    def rest(self) -> Usage:
        """Discard the chunks that were not read, and return their usage."""
        unread = sum((chunk.usage for chunk, _ in self._buffer), Usage())
        self._buffer.clear()
        return unread

    async def close(self) -> None:
        """Cancel the generation, on the server too, and wait until it has ended. Safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._chunks.aclose()

    async def _write(self) -> None:
        self.began = True
        try:
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    self._buffer.append((chunk, not self._taken))
                    self._arrived.set()
                    if not self._taken:
                        self.head += chunk.usage
                        self._spend(chunk.usage)
                        self._check()
        except BudgetExhausted:
            raise
        except Exception as error:  # raised by `read` if the step is requested; otherwise nothing is lost
            self._error = error
        finally:
            self._arrived.set()

    def _late(self, usage: Usage) -> None:
        self._spend(usage)


class Speculator:
    """The speculative steps of one search.

    Args:
        policy: The model that generates steps.
        journal: The event log, which counts the tokens; its tree has the plan, with the speculation mode and the number
            of children per step.
        spawn: Starts a task that ends with the search.
        request: Returns the request for a slot of a node (arguments: node, slot, group).
        check: Raises if the budget is spent.
    """

    def __init__(
        self,
        policy: Policy,
        journal: EventLog,
        spawn: Spawn,
        request: Callable[[Node, int, int], StepRequest],
        check: Callable[[], None],
    ) -> None:
        self._policy = policy
        self._journal = journal
        self._spawn = spawn
        self._request = request
        self._check = check
        self._early: dict[tuple[int, int, int], SpeculativeStep] = {}
        # Scored steps of each round, best first, by depth and group.
        self._rivals: dict[tuple[int, int], list[Node]] = {}

    @property
    def _plan(self) -> Plan:
        return self._journal.tree.plan

    @property
    def _on(self) -> bool:
        plan = self._plan
        limited = plan.budget.tokens is not None or plan.budget.flops is not None
        return plan.speculation == "on" or (
            plan.speculation == "auto" and isinstance(self._policy, HasSpareCapacity) and not limited
        )

    def take(self, parent: Node, slot: int, group: int) -> SpeculativeStep | None:
        """Return and remove the speculative step for a slot that is now requested; None if there is none."""
        early = self._early.pop((parent.id, group, slot), None)
        return None if early is None or early.failed else early

    def whole(self, node: Node, survivors: int) -> None:
        """Begin the first child of `node`, which is finished and waits for its score, if speculation is allowed."""
        if survivors and self._can_go_on(node):
            self._begin(node, 1)

    def settled(self, node: Node, survivors: int) -> None:
        """Begin the other children of `node`, now scored, if it is among the best so far, and drop those of others."""
        if not survivors:
            return
        rivals = self._rivals.setdefault((node.depth, node.group), [])
        if node.merged_into is None and node.finish != "length" and not node.blank and node not in rivals:
            rivals.append(node)
            rivals.sort(key=lambda rival: -rival.value)
        rivals[:] = [rival for rival in rivals if not rival.cut and rival.merged_into is None]
        self.drop(rivals[survivors:])
        if node not in rivals[:survivors]:
            self.drop([node])
        elif self._can_go_on(node):
            self._begin(node, self._plan.m)

    def drop(self, nodes: Sequence[Node]) -> None:
        """Cancel the speculative children of `nodes`."""
        if self._early:
            gone = {node.id for node in nodes}
            self.drop_if(lambda node: node.id in gone)

    def drop_if(self, unwanted: Callable[[Node], bool]) -> None:
        """Cancel the speculative children of all nodes that are `unwanted`."""
        for place in [place for place in self._early if unwanted(self._journal.tree.nodes[place[0]])]:
            self._spawn(self._early.pop(place).close())

    def forget(self) -> None:
        """Cancel all speculative steps, because the plan has changed."""
        self._rivals.clear()
        self.drop_if(lambda _: True)

    # -- internal ----------------------------------------------------------------------------------------------------

    def _can_go_on(self, node: Node) -> bool:
        going = node.finish == "step" and not node.blank and not node.pruned
        return going and self._on and node.depth < self._plan.max_depth and not self._journal.tree.is_cut(node)

    def _begin(self, node: Node, children: int) -> None:
        """Begin the first `children` of `node` while the policy has room: a child that waits gains nothing."""
        room = children
        if self._plan.speculation == "auto" and isinstance(self._policy, HasSpareCapacity):
            room = self._policy.spare - self._unborn()
        for slot in range(children):
            if (node.id, node.group, slot) in self._early or self._journal.tree.at(node, slot, node.group):
                continue
            if room <= 0:
                return
            room -= 1
            try:
                request = self._request(node, slot, node.group)
            except ContextExceeded:
                return
            early = SpeculativeStep(self._policy, request, self._counter(node), self._check)
            self._early[node.id, node.group, slot] = early
            early.begin(self._spawn)

    def _unborn(self) -> int:
        """Return the number of steps whose task has not yet run, so that the policy does not count them."""
        return sum(1 for early in self._early.values() if not early.began)

    def _counter(self, node: Node) -> Callable[[Usage], None]:
        def count(usage: Usage) -> None:
            if usage != Usage():
                self._journal.append(SpeculativeTokens(t=self._journal.now, node=node.id, usage=usage))

        return count
