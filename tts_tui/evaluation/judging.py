"""Outcomes of finished searches: the voting solutions, which answers are equal, and which are right."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

from msgspec.structs import replace

from tts_tui.answers.canonical import canonical
from tts_tui.budget import flops
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.evaluation.outcomes import Answered, Outcome, elected
from tts_tui.tree.events import SearchFinished
from tts_tui.tree.search_tree import Node, SearchTree
from tts_tui.tree.totals import Flops, PolicyTokens, PrmTokens, Tokens


class Judge(Protocol):
    """A judge of whether answers mean the same, such as `tts_tui.answers.grading.Grader`."""

    async def same(self, left: str, right: str) -> bool | None:
        """Return whether two answers mean the same; None if there is no verdict."""
        ...

    async def group(self, answers: Sequence[str | None]) -> list[int]:
        """Return a group number for each answer, equal for answers that mean the same; -1 for a missing answer."""
        ...


def voters(tree: SearchTree) -> list[Node]:
    """Return the voting solutions of a search by their places in the tree, so that ties break as in the search."""
    counted = {tree.nodes[id] for vote in tree.finished.votes for id in vote.solutions} if tree.finished else set()
    return sorted(counted.union(tree.voters()), key=lambda node: [(step.group, step.slot) for step in node.path])


async def outcome_of(item: Item, plan: str, tree: SearchTree, judge: Judge) -> Outcome:
    """Return the outcome of a finished search.

    An answer without a verdict is not right, and is counted as undecided.

    Args:
        item: The problem.
        plan: Name of the plan.
        tree: The tree of the finished search.
        judge: The judge of which answers are equal and right.
    """
    assert tree.finished is not None
    nodes = voters(tree)
    groups = await judge.group([node.answer for node in nodes])
    verdicts: dict[int, bool | None] = {}
    for node, group in zip(nodes, groups, strict=True):
        if group >= 0 and verdicts.get(group) is None:  # another spelling of the same answer may be easier to judge
            verdicts[group] = await is_right(node.answer, item, judge)
    solutions = [
        Answered(node.answer, group, verdicts.get(group) is True, tuple(node.scores), len(node.path_ids))
        for node, group in zip(nodes, groups, strict=True)
    ]
    unknown = sum(verdict is None for verdict in verdicts.values())
    return _outcome(item, plan, tree, tree.finished, _in_order(tree, nodes, solutions), unknown)


async def is_right(answer: str | None, item: Item, judge: Judge) -> bool | None:
    """Return whether an answer is right; None if there is no verdict. Unreadable answers are compared as text."""
    if answer is None:
        return False
    verdict = answer.strip() == item.answer.strip() or await judge.same(answer, item.answer)
    if not verdict and item.tolerance > 0 and _close(answer, item.answer, item.tolerance):
        return True
    return verdict


def _close(left: str, right: str, tolerance: float) -> bool:
    """Return whether two answers are numbers that differ by at most `tolerance`."""
    try:
        return abs(Fraction(canonical(left)) - Fraction(canonical(right))) <= Fraction(str(tolerance))
    except ValueError:
        return False


def _in_order(tree: SearchTree, nodes: Sequence[Node], solutions: list[Answered]) -> list[Answered]:
    """Order the solutions so that a vote elects the search's winner; the search may have broken ties differently."""
    assert tree.finished is not None
    place = next((place for place, node in enumerate(nodes) if node.id == tree.finished.node), None)
    if place is None:
        return solutions
    winner = elected(solutions, tree.plan.score, tree.plan.vote)
    if winner is not None and winner.group == solutions[place].group:
        return solutions
    return [solutions[place], *solutions[:place], *solutions[place + 1 :]]


def _outcome(
    item: Item, plan: str, tree: SearchTree, finished: SearchFinished, solutions: Sequence[Answered], undecided: int
) -> Outcome:
    winner = next((one for one in solutions if one.answer == finished.answer), None)
    return Outcome(
        problem=item.id,
        plan=plan,
        answer=finished.answer,
        right=winner is not None and winner.right,
        solutions=tuple(solutions),
        reason=finished.reason,
        detail=finished.detail,
        tokens=finished.tokens,
        flops=finished.flops,
        seconds=finished.seconds,
        undecided=undecided,
    )


async def failure_of(item: Item, plan: str, why: str, tree: SearchTree | None, judge: Judge) -> Outcome:
    """Return the outcome of a failed search, with the costs in its recording."""
    if tree is not None and tree.finished is not None:
        return replace(await outcome_of(item, plan, tree, judge), reason="failed", detail=why)
    tokens, spent, seconds = Tokens(PolicyTokens(0, 0, 0), PrmTokens(0, 0)), Flops(0.0, 0.0), 0.0
    if tree is not None:
        counts = tree.counts
        policy = PolicyTokens(counts.prompt_computed, counts.prompt_cached, counts.completion)
        tokens = Tokens(policy, PrmTokens(counts.prm_computed, counts.prm_cached))
        spent = Flops(*flops(counts, tree.start.policy, tree.start.prm))
        seconds = tree.seconds
    return Outcome(
        problem=item.id,
        plan=plan,
        answer=None,
        right=False,
        solutions=(),
        reason="failed",
        detail=why,
        tokens=tokens,
        flops=spent,
        seconds=seconds,
    )
