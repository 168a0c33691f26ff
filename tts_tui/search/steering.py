"""The operations of a person in a running search: ask for steps, write one, cut, restore, change the plan.

Each of them is an event like any other, so it is replayed, and a resumed search continues with it. No method here
waits: everything that takes time runs in a task of the search.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msgspec.structs import replace

from tts_tui.answers.canonical import boxed
from tts_tui.errors import BackendError, UsageError
from tts_tui.plan import Plan, requires_restart
from tts_tui.preflight import check_ids
from tts_tui.protocols import EncodesText, Finish, Policy
from tts_tui.search.branches import Branches
from tts_tui.search.generation import StepGenerator
from tts_tui.search.slots import ENDED
from tts_tui.search.strategy import Strategy
from tts_tui.search.tasks import TaskScope
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import HAND, WRITTEN, NodesKept, NodesPruned, Notice, PlanChanged
from tts_tui.tree.search_tree import Node

BY_HAND = "cut by hand"
RESTORED = "restored by hand"
INTERRUPTED = ("interrupted", ENDED)


class Steering:
    """The operations of a person in one search.

    All methods raise `UsageError`, with a one-sentence message, if the operation is not possible.

    Args:
        ask: Fills a slot of a node and returns the task.
        recheck: Makes the search check its limits again.
        policy: The model that generates steps.
        journal: The event log of the search.
        tasks: The scope that tasks are spawned in.
        writer: The generator of steps.
        branches: The runs of the strategy.
        choose: Returns the strategy for a plan, or raises if the search cannot follow that plan.
    """

    def __init__(
        self,
        ask: Callable[[Node, int], asyncio.Task[Node | None]],
        recheck: Callable[[], None],
        policy: Policy,
        journal: EventLog,
        tasks: TaskScope,
        writer: StepGenerator,
        branches: Branches,
        choose: Callable[[Plan], Strategy],
    ) -> None:
        self._ask_for = ask
        self._recheck = recheck
        self._policy = policy
        self._journal = journal
        self._tree = journal.tree
        self._tasks = tasks
        self._writer = writer
        self._branches = branches
        self._choose = choose
        # The next unassigned slot, by parent and group: the steps of assigned slots may not have begun yet.
        self._slots: dict[tuple[int, int], int] = {}
        self._work: set[asyncio.Task[object]] = set()

    def expand(self, node: Node, n: int | None = None) -> None:
        """Ask for `n` more next steps of `node`; a pause does not hold them.

        Args:
            node: The node to continue.
            n: Number of steps, by default the plan's m.

        Raises:
            UsageError: The search is over, or `node` cannot be continued.
        """
        node = self._own(node)
        self._check_can_follow(node)
        count = self._tree.plan.m if n is None else n
        if count < 1:
            raise UsageError(f"{count} steps cannot be asked for: ask for at least one")
        for _ in range(count):
            self._ask(node, self._slot(node, HAND))

    def write(self, node: Node, text: str) -> None:
        """Add `text` as the next step of `node`, and continue the search from there unless it states the answer.

        A step that does not fit the model's context, or that the model's server refuses, is left out with a notice.

        Raises:
            UsageError: The search is over, `node` cannot be continued, `text` is blank or has NUL bytes, or the policy
                cannot tokenize text (`EncodesText`).
        """
        node = self._own(node)
        self._check_can_follow(node)
        if not isinstance(self._policy, EncodesText):
            raise UsageError("this policy cannot take a step in words: use one that can, such as embedded")
        if not text.strip() or "\0" in text:
            raise UsageError("the step says nothing: write some text")
        finish: Finish = "step" if boxed(text) is None else "boxed"
        separator = self._tree.plan.separator
        if finish == "step" and not text.endswith(separator):
            text = text.rstrip() + separator
        self._spawn(self._write(node, self._slot(node, WRITTEN), text, finish, self._policy))

    def cut(self, nodes: Sequence[Node]) -> None:
        """Cut `nodes` and everything below them: they are not continued, and do not vote.

        Raises:
            UsageError: The search is over, or none of `nodes` can be cut.
        """
        self._check_runs()
        given = self._tree.search_root.path
        nodes = [self._own(node) for node in nodes]
        for node in nodes:
            if node.parent is None or node in given:
                raise UsageError("what the search begins with cannot be cut: stop the search instead")
            if node.state == "failed":
                raise UsageError(f"step {node.label} failed: there is nothing to cut")
        fresh = tuple(node.id for node in dict.fromkeys(nodes) if not node.cut)
        if not fresh:
            raise UsageError("this is cut already: restore it to go on with it")
        self._journal.append(NodesPruned(t=self._journal.now, nodes=fresh, why=BY_HAND, by="person"))
        self._branches.end_cut()
        self._writer.end_cut()

    def restore(self, node: Node) -> None:
        """Restore a node that a person or the strategy pruned, and continue the search from it.

        Raises:
            UsageError: The search is over, or there is nothing to restore.
        """
        self._check_runs()
        node = self._own(node)
        if not node.pruned:
            raise UsageError(f"step {node.label} was not given up: there is nothing to restore")
        self._check_whole(node)
        if node.parent is not None and self._tree.is_cut(node.parent):
            raise UsageError(f"step {node.label} stands below a cut: restore what was cut above it first")
        self._journal.append(NodesKept(t=self._journal.now, nodes=(node.id,), why=RESTORED, by="person"))
        if node.ended:
            self._branches.sync()
        else:
            self._branches.begin(node)

    def change(self, plan: Plan) -> None:
        """Change to another plan. Score, vote, sampling and limits take effect at once.

        A change of strategy, n, m, variant or depth makes the strategy decide again from the start, over the same tree.

        Raises:
            PlanError: The plan cannot be followed, or not with the models of this search.
            UsageError: The search is over.
        """
        self._check_runs()
        before = self._tree.plan
        if plan == before:
            return
        strategy = self._choose(plan)
        self._journal.append(PlanChanged(t=self._journal.now, plan=plan))
        if requires_restart(before, plan):
            self._writer.end_strategy()
            self._branches.restart(strategy)
        elif replace(before, score=plan.score, vote=plan.vote, budget=plan.budget, why=plan.why) != plan:
            self._writer.ahead.forget()  # speculative steps were sampled under the old settings
        self._recheck()

    # -- for the search ------------------------------------------------------------------------------------------------

    def running(self) -> list[asyncio.Task[object]]:
        """Return the tasks of a person's requests that have not finished."""
        return list(self._work)

    def take_up(self) -> None:
        """Resume the requests of a person that a recording left unfinished."""
        tree, given = self._tree, self._tree.search_root.path
        for node in tree.nodes[1:]:
            if node in given:
                if node.score is None:
                    self._spawn(self._writer.score_step(node))
            elif node.by_hand and not tree.is_cut(node):
                self._take_up(node)
        for id in sorted(tree.restored):
            node = tree.nodes[id]
            if not node.ended and node not in tree.branches and not tree.is_cut(node):
                self._branches.begin(node)

    def _take_up(self, node: Node) -> None:
        assert node.parent is not None
        if node.state == "done":
            if node.merged_into is None:
                self._spawn(self._finish(node))
        elif node.group == HAND and node.why in INTERRUPTED:
            others = (child for child in self._tree.attempts(node.parent, HAND) if child.slot == node.slot)
            if next(others, None) is None:
                self._ask(node.parent, node.slot)

    # -- internal ------------------------------------------------------------------------------------------------------

    def _own(self, node: Node) -> Node:
        """Return the node in the search's own tree: a display may show another fold of the same events."""
        return self._tree.nodes[node.id]

    def _check_runs(self) -> None:
        if not self._tasks.are_open:
            raise UsageError("the search is over: fork it to go on from one of its steps")

    def _check_whole(self, node: Node) -> None:
        if node.state == "writing":
            raise UsageError(f"step {node.label} is still being written: wait until it is whole")
        if node.state == "failed":
            raise UsageError(f"step {node.label} failed: choose another one")
        if node.merged_into is not None:
            twin = self._tree.nodes[node.merged_into]
            raise UsageError(f"step {node.label} says the same as step {twin.label}: choose that one")

    def _check_can_follow(self, node: Node) -> None:
        self._check_runs()
        self._check_whole(node)
        if node.ended:
            how = "ended its answer" if node.terminal else "was cut off at its limit of tokens"
            raise UsageError(f"step {node.label} {how}: nothing can follow it")
        if self._tree.is_cut(node):
            raise UsageError(f"step {node.label} is cut: restore it first")

    def _slot(self, parent: Node, group: int) -> int:
        """Assign the next free slot of `parent` in `group`."""
        taken = max((child.slot for child in parent.children if child.group == group), default=-1) + 1
        slot = max(taken, self._slots.get((parent.id, group), 0))
        self._slots[parent.id, group] = slot + 1
        return slot

    def _ask(self, parent: Node, slot: int) -> None:
        self._keep(self._ask_for(parent, slot))

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        self._keep(self._tasks.spawn(work))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _write(self, parent: Node, slot: int, text: str, finish: Finish, policy: EncodesText) -> None:
        try:
            ids = await policy.encode(text)
            check_ids(ids)
        except BackendError as error:
            self._left_out(str(error))
            return
        used = len(parent.path_ids) + len(ids)
        most = min(self._tree.plan.total_tokens, self._policy.info.context - len(self._tree.start.prompt_ids))
        if used >= most:
            self._left_out(f"with its {len(ids)} tokens the path would have {used}, and it may have {most}")
        elif self._tree.is_cut(parent):
            self._left_out(f"step {parent.label} was cut meanwhile")
        else:
            await self._finish(self._writer.insert(parent, slot, text, ids, finish))

    def _left_out(self, why: str) -> None:
        self._journal.append(Notice(t=self._journal.now, message=f"the step that you wrote was left out: {why}"))

    async def _finish(self, node: Node) -> None:
        """Score a person's finished step; if the person wrote it, continue the search from it."""
        await self._writer.score_step(node)
        goes_on = node.group == WRITTEN and not node.ended and not self._tree.is_cut(node)
        if goes_on and node not in self._tree.branches:
            self._branches.begin(node)
