r"""Beam search under a PRM (arXiv 2502.06703, section 2.2; Snell et al., 2024).

Two public implementations differ, and `plan.variant` chooses. **official**, the paper's own code, is the default, for
three reasons: a beam that finishes keeps its place among the N / M, so a round never samples more than N steps; a
step that was cut off is no end of an answer; and no beam is copied, so each vote is an independent sample. It is also
what the paper's figures were made with.

=================  =================================================  ===============================================
                   official                                           sal (search-and-learn)
=================  =================================================  ===============================================
children           M of each survivor                                 N in all, dealt out in turn
survivors          the N / M best, less one per finished beam         the N / M best of the unfinished
chosen by          score of the last step                             the plan's score
equal values       by the step before, then the oldest                the last ones sampled
dropped            steps cut off, empty, or like a sibling            nothing; a step that was cut off is an answer
ends               N / M finished, or depth                           no beam left, or depth (then to the end of text)
votes              at most N / M                                      the first N that finished, never padded by copies
=================  =================================================  ===============================================

A path that cannot be grown any more (three rounds of unusable steps, or the depth limit) takes a finished beam's place,
and votes only if an answer stands in it. Where this differs from both implementations on purpose,
`docs/explanation/differences.md` says how and why.
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
"""Slots from here on are for second rounds where several searches share the root's."""
TRIES = 3
"""Rounds of M steps that the official code samples before it gives a path up."""


class BeamSearch:
    """N first steps; each round the N / M best grow M children each."""

    name = "beam"
    summary = "step by step, the N/M best paths grow M children each"
    needs_scores = True
    uses_width = True

    async def run(self, search: SearchView) -> Sequence[Node]:
        """Grows all beams together, round by round."""
        plan = search.plan
        plan.check_width()
        if plan.variant == "search-and-learn":
            return await _search_and_learn(search)
        return await official(search, first=plan.n, beams=plan.n // plan.m)


async def official(
    search: SearchView, *, first: int, beams: int, group: int = 0, start: int = 0, merge: bool = True
) -> list[Node]:
    """Beam search as the official code runs it.

    Args:
        search: The search.
        first: Steps sampled from the root.
        beams: Paths that survive a round, finished ones included.
        group: Independent part of the search; DVTS runs one such beam search per subtree.
        start: First slot of the first steps.
        merge: Whether first steps that say the same are merged; not where several searches share the root's slots.
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
                room = beams - len(done)  # stays as it is if the rest of the front is finished: so does theirs
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
    """The `k` best by the score of the last step; then by that of the step before, then the older."""
    return sorted(nodes, key=lambda node: (-node.value, -node.parent.value if node.parent else 0.0))[:k]


def ended(node: Node) -> bool:
    """Whether the path cannot be continued: its answer ended, or its last step was cut off."""
    return node.terminal or node.finish == "length"


def select(search: SearchView, kept: Sequence[Node], pool: Sequence[Node], why: str) -> None:
    """Records a choice: `kept` go on, the rest of the `pool` is given up."""
    chosen = set(kept)
    search.keep(kept, f"among the best {len(kept)} {why}")
    search.prune([node for node in pool if node not in chosen], f"not among the best {len(kept)} {why}")


async def _first_steps(search: SearchView, n: int, group: int, survivors: int, start: int, merge: bool) -> list[Node]:
    """First steps; if none is usable, a second round in which anything goes."""
    ahead = survivors if merge else 0  # who shares the root's slots cannot tell which of them will go on
    steps = search.expand([search.root], n, start=start, group=group, merge=merge, survivors=ahead)
    again = start + n if merge else _SPARE + start
    return _usable(search, await steps) or await search.expand([search.root], n, start=again, group=group, merge=False)


async def _next_steps(search: SearchView, node: Node, m: int, group: int, survivors: int) -> list[Node]:
    """M usable next steps, or fewer; none if three rounds brought none."""
    for attempt in range(TRIES):
        steps = search.expand([node], m, start=attempt * m, group=group, survivors=survivors)
        usable = _usable(search, await steps)
        if usable:
            return usable
    return []


def _usable(search: SearchView, nodes: Sequence[Node]) -> list[Node]:
    """Steps that say something and were not cut off."""
    search.prune([node for node in nodes if node.blank], "an empty step")
    search.prune([node for node in nodes if node.finish == "length"], "cut off at the step limit")
    return [node for node in nodes if not node.blank and node.finish != "length"]


async def _search_and_learn(search: SearchView) -> list[Node]:
    """Beam search as search-and-learn runs it, without its padding by copies."""
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
    """Next steps in search-and-learn's order: the first copy of every beam, then the second. The last depth runs on.

    All `nodes` have the same depth.
    """
    if not last:
        steps = await search.expand(nodes, share, group=group, merge=False)
        return sorted(steps, key=lambda node: node.slot)  # stable: beams keep their order within a copy
    depth = nodes[0].depth
    rounds = [search.rollout(node, count, group=group) for node, count in zip(nodes, share, strict=True)]
    ends = [node for ready in [await each for each in rounds] for node in ready]
    return sorted(ends, key=lambda node: node.path[depth].slot)


def sal_value(search: SearchView, node: Node) -> float:
    """The plan's score over the whole path; 0 where scores are missing."""
    return path_score(node.scores, search.plan.score) or 0.0


def _sal_best(search: SearchView, nodes: Sequence[Node], k: int) -> list[Node]:
    """The `k` nodes of the highest value; of equal ones those that a recording went on with, else the last ones."""
    return sorted(nodes, key=lambda node: (sal_value(search, node), node.kept))[-k:]


strategy = BeamSearch()
