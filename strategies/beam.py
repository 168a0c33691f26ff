r"""Beam search under a PRM (arXiv 2502.06703, section 2.2; Snell et al., 2024).

The two public implementations differ, and `plan.variant` selects one. **paper**, the paper's official code, is the
default, for three reasons: a beam that finishes keeps its place among the N / M, so a round never samples more than
N steps; a step that was cut off does not end an answer; and no beam is copied, so each vote is an independent sample.
The paper's figures were also made with it.

=================  =================================================  ===============================================
                   paper (the official code)                          search-and-learn
=================  =================================================  ===============================================
children           M of each survivor                                 N in total, dealt out in turn
survivors          the N / M best, less one per finished beam         the N / M best of the unfinished
chosen by          score of the last step                             the plan's score
ties               by the step before, then the oldest                the last ones sampled
dropped            steps cut off, empty, or identical to a sibling    nothing; a step that was cut off is an answer
ends               N / M finished, or depth                           no beam left, or depth (then to the end of text)
votes              at most N / M                                      the first N that finished, never padded by copies
=================  =================================================  ===============================================

A path that cannot be grown any further (three rounds of unusable steps, or the depth limit) takes the place of a
finished beam, and votes only if it has an answer. `docs/explanation/differences.md` lists the intended differences from
both implementations, with the reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tts_tui.answers.voting import path_score
from tts_tui.concurrency import concurrently

if TYPE_CHECKING:
    from tts_tui.search.strategy import SearchView
    from tts_tui.tree.search_tree import Node

_SPARE = 1_000_000
"""First slot of the second rounds when several searches share the root's slots."""
TRIES = 3
"""Number of rounds of M steps that the official code samples before it abandons a path."""


class BeamSearch:
    """Beam search: N first steps, then in each round the N / M best paths grow M children each."""

    name = "beam"
    summary = "step by step, the N/M best paths grow M children each"
    needs_scores = True
    uses_width = True

    async def run(self, search: SearchView) -> Sequence[Node]:
        """Grow all beams together, round by round, and return the finished ones."""
        plan = search.plan
        plan.check_width()
        if plan.variant == "search-and-learn":
            return await _search_and_learn(search)
        return await official(search, first=plan.n, beams=plan.n // plan.m)


async def official(
    search: SearchView, *, first: int, beams: int, group: int = 0, start: int = 0, merge: bool = True
) -> list[Node]:
    """Run beam search as the official code does, and return the finished paths.

    Args:
        search: The search.
        first: Number of steps sampled from the root.
        beams: Number of paths that survive a round, finished ones included.
        group: Independent part of the search; DVTS runs one such beam search per subtree.
        start: First slot of the first steps.
        merge: Merge identical first steps; must be False if several searches share the root's slots.
    """
    m, depth = search.plan.m, search.plan.max_depth
    children = {search.root: await _first_steps(search, first, group, beams, start, merge)}
    front = [search.root]
    done: list[Node] = []
    room = beams
    for _ in range(depth + 1):
        pool: list[Node] = []
        grown: list[Node] = []
        for node in front:
            if children[node]:
                room = beams - len(done)  # unchanged if the rest of the front is finished, as in the official code
                pool += best(children[node], room)
                grown += children[node]
            elif node is not search.root:
                done.append(node)
                if len(done) == beams:
                    return done
        front = best(pool, room)
        if not front:
            break
        select(search, front, grown, f"of {len(grown)} by the score of the last step")
        going = [node for node in front if not ended(node) and node.depth < depth]
        steps = await concurrently(_next_steps(search, node, m, group, room) for node in going)
        children = {node: [] for node in front} | dict(zip(going, steps, strict=True))
    return done


def best(nodes: Sequence[Node], k: int) -> list[Node]:
    """Return the `k` best nodes by the score of the last step; ties go by the step before, then to the older."""
    return sorted(nodes, key=lambda node: (-node.value, -node.parent.value if node.parent else 0.0))[:k]


def ended(node: Node) -> bool:
    """Return whether the path cannot be continued: its answer ended, or its last step was cut off."""
    return node.terminal or node.finish == "length"


def select(search: SearchView, kept: Sequence[Node], pool: Sequence[Node], why: str) -> None:
    """Record a selection: the `kept` nodes continue, and the rest of the `pool` is pruned.

    Args:
        search: The search.
        kept: The nodes to continue.
        pool: All nodes that were compared.
        why: The criterion, which completes "among the best K ...".
    """
    chosen = set(kept)
    search.keep(kept, f"among the best {len(kept)} {why}")
    search.prune([node for node in pool if node not in chosen], f"not among the best {len(kept)} {why}")


async def _first_steps(search: SearchView, n: int, group: int, survivors: int, start: int, merge: bool) -> list[Node]:
    """Sample the first steps; if none is usable, sample a second round and accept all of it."""
    ahead = survivors if merge else 0  # with shared root slots, the survivors of this search are not known in advance
    steps = search.expand([search.root], n, start=start, group=group, merge=merge, survivors=ahead)
    again = start + n if merge else _SPARE + start
    return _usable(search, await steps) or await search.expand([search.root], n, start=again, group=group, merge=False)


async def _next_steps(search: SearchView, node: Node, m: int, group: int, survivors: int) -> list[Node]:
    """Return up to M usable next steps; none if three rounds had none."""
    for attempt in range(TRIES):
        steps = search.expand([node], m, start=attempt * m, group=group, survivors=survivors)
        usable = _usable(search, await steps)
        if usable:
            return usable
    return []


def _usable(search: SearchView, nodes: Sequence[Node]) -> list[Node]:
    """Return the steps that are not blank and were not cut off, and prune the others."""
    search.prune([node for node in nodes if node.blank], "an empty step")
    search.prune([node for node in nodes if node.finish == "length"], "cut off at the step limit")
    return [node for node in nodes if not node.blank and node.finish != "length"]


async def _search_and_learn(search: SearchView) -> list[Node]:
    """Run beam search as search-and-learn does, without its padding by copies."""
    plan = search.plan
    front = [search.root]
    done: list[Node] = []
    start = search.root.depth
    end = max(plan.max_depth, start + 1)
    for depth in range(start, end):
        share = [plan.n // len(front) + (place < plan.n % len(front)) for place in range(len(front))]
        steps = await sal_steps(search, front, share, last=depth == end - 1)
        done += [node for node in steps if ended(node)]
        going = [node for node in steps if not ended(node)]
        if not going:
            break
        kept = set(_sal_best(search, going, plan.n // plan.m))
        front = [node for node in going if node in kept]
        select(search, front, going, f"of {len(going)} by {plan.score}")
    return [node for node in done if not search.tree.is_cut(node)][: plan.n]


async def sal_steps(
    search: SearchView, nodes: Sequence[Node], share: Sequence[int], *, last: bool, group: int = 0
) -> list[Node]:
    """Return the next steps in search-and-learn's order: the first copy of every beam, then the second, and so on.

    Args:
        search: The search.
        nodes: The beams to continue, all of the same depth.
        share: Number of steps for each of them.
        last: True at the last depth, where the steps are continued to the end of the text.
        group: Independent part of the search.
    """
    if not last:
        steps = await search.expand(nodes, share, group=group, merge=False)
        return sorted(steps, key=lambda node: node.slot)  # stable: beams keep their order within a copy
    depth = nodes[0].depth
    rounds = [search.rollout(node, count, group=group) for node, count in zip(nodes, share, strict=True)]
    ends = [node for ready in [await each for each in rounds] for node in ready]
    return sorted(ends, key=lambda node: node.path[depth].slot)


def sal_value(search: SearchView, node: Node) -> float:
    """Return the plan's score over the entire path; 0 if scores are missing."""
    return path_score(node.scores, search.plan.score) or 0.0


def _sal_best(search: SearchView, nodes: Sequence[Node], k: int) -> list[Node]:
    """Return the `k` nodes of the highest value; ties go to nodes kept in a recording, then to the last ones."""
    return sorted(nodes, key=lambda node: (sal_value(search, node), node.kept))[-k:]


strategy = BeamSearch()
