"""Writes on where the search will probably go on, while it still waits to know.

A round of a beam search waits for its slowest step and for scores. Meanwhile the other steps need not be idle: as soon
as one is whole its first child is begun, and with its score, if it is among the best so far, the other children too.
A child that is written before it is asked for is an independent sample of the same policy under the same prefix, as
any other. If its parent is given up it is ended, and its tokens are counted as what they are: spent in vain.

Strategies see nothing of it but time: a step enters the tree when it is asked for, with what is there of it already.

A child is a request of its own and not the parent's stream going on beyond its separator: a server shares the tokens of
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
    """A step that is written before anybody has asked for it.

    Args:
        policy: Who writes.
        request: What is asked.
        count: Told what each piece costs, for as long as nobody reads.
        check: Called after it; raises when the budget is spent.

    Attributes:
        head: What was written, and counted, while nobody read.
        began: The policy has been asked.
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
        """Starts to write."""
        self._task = spawn(self._write())

    def claim(self, spend: Callable[[Usage], None]) -> None:
        """Somebody reads from now on, and counts; `spend` is told what comes after the last chunk."""
        self._taken, self._spend = True, spend
        self._claim.make()

    @property
    def failed(self) -> bool:
        """Whether it failed before anybody needed it."""
        return self._error is not None

    async def read(self) -> tuple[Chunk, bool] | None:
        """The next chunk, and whether it was counted before; None at the end."""
        while not self._buffer:
            if self._error is not None:
                raise self._error
            if self._task is None or self._task.done():
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._buffer.popleft()

    def rest(self) -> Usage:
        """What was written and will not be read."""
        unread = sum((chunk.usage for chunk, _ in self._buffer), Usage())
        self._buffer.clear()
        return unread

    async def close(self) -> None:
        """Ends it, on the server too. Safe to call twice."""
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
        except Exception as error:  # whoever asks for the step hears of it, and if nobody does, nothing is lost
            self._error = error
        finally:
            self._arrived.set()

    def _late(self, usage: Usage) -> None:
        self._spend(usage)


class Speculator:
    """All steps of one search that nobody has asked for yet.

    Args:
        policy: Who writes.
        journal: Where tokens are counted; its tree has the plan, which says whether anything is written ahead, and how
            many children a step has.
        spawn: Starts a task that ends with the search.
        request: Makes the request for a slot of a step.
        check: Raises when the budget is spent.
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
        # Steps of a round that have their scores, by depth and group.
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
        """What is there for a slot that is asked for now, if anything is."""
        early = self._early.pop((parent.id, group, slot), None)
        return None if early is None or early.failed else early

    def whole(self, node: Node, survivors: int) -> None:
        """`node` is whole and waits for its score: its first child may be begun."""
        if survivors and self._can_go_on(node):
            self._begin(node, 1)

    def settled(self, node: Node, survivors: int) -> None:
        """`node` has its score: what is written on behind the best so far, and nothing behind others."""
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
        """Ends what is written behind `nodes`."""
        if self._early:
            gone = {node.id for node in nodes}
            self.drop_if(lambda node: node.id in gone)

    def drop_if(self, unwanted: Callable[[Node], bool]) -> None:
        """Ends what is written behind nodes that are `unwanted`."""
        for place in [place for place in self._early if unwanted(self._journal.tree.nodes[place[0]])]:
            self._spawn(self._early.pop(place).close())

    def forget(self) -> None:
        """Ends all of it: the search will not go on as it seemed."""
        self._rivals.clear()
        self.drop_if(lambda _: True)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _can_go_on(self, node: Node) -> bool:
        going = node.finish == "step" and not node.blank and not node.pruned
        return going and self._on and node.depth < self._plan.max_depth and not self._journal.tree.is_cut(node)

    def _begin(self, node: Node, children: int) -> None:
        """Begins the first `children` of `node`, as far as there is room: one that waits would be no gain."""
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
        """Steps that were begun in this very moment, and that the policy has not heard of."""
        return sum(1 for early in self._early.values() if not early.began)

    def _counter(self, node: Node) -> Callable[[Usage], None]:
        def count(usage: Usage) -> None:
            if usage != Usage():
                self._journal.append(SpeculativeTokens(t=self._journal.now, node=node.id, usage=usage))

        return count
