"""Rows of a tree that folds: what they are, that counting them agrees with walking, and how little work it is."""

from __future__ import annotations

import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_tui import ModelInfo, Plan, SearchTree, Usage
from tts_tui.tree.events import (
    NodesKept,
    NodesPruned,
    SearchStarted,
    StepFailed,
    StepFinished,
    StepMerged,
    StepScored,
    StepStarted,
)
from tts_tui.ui import row_counts, tree_rows
from tts_tui.ui.tree_rows import TreeLine, TreeRows


class Growing:
    """A tree that grows by events, and its rows."""

    def __init__(self):
        self.tree = SearchTree()
        self.tree.apply(
            SearchStarted(
                problem="p", plan=Plan(), policy=ModelInfo("m", 1, 9), prm=None, prompt_ids=(1,), version="", created=""
            )
        )
        self.folding = TreeRows(self.tree)

    def add(self, parent=0, text="", score=None, slot=None, done=True):
        """A new step; returns its id."""
        node = len(self.tree.nodes)
        slot = len(self.tree.nodes[parent].children) if slot is None else slot
        self.tree.apply(StepStarted(node=node, parent=parent, slot=slot))
        if done:
            self.tree.apply(
                StepFinished(node=node, ids=(1,), text=text or f"s{node}", finish="step", usage=Usage(completion=1))
            )
        if score is not None:
            self.tree.apply(StepScored(node=node, score=score))
        return node

    def chain(self, parent, length):
        """A path of steps below `parent`; returns their ids."""
        ids = []
        for _ in range(length):
            parent = self.add(parent)
            ids.append(parent)
        return ids

    def tell(self, event):
        """Something happens to steps that are there."""
        self.tree.apply(event)
        self.folding.sync()
        for id in event.nodes if isinstance(event, NodesKept | NodesPruned) else (event.node,):
            self.folding.changed(id)

    def prune(self, *nodes):
        self.tell(NodesPruned(nodes=nodes, why="w"))

    def restore(self, *nodes):
        self.tell(NodesKept(nodes=nodes, why="w"))

    def picture(self, top=0, height=1000):
        self.folding.sync()
        return [
            f"{line.rails}{line.id}" + (f" +{line.hidden}" if line.hidden else "")
            for line in self.folding.window(top, height)
        ]


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_a_tree_without_a_root_has_no_rows():
    tree_rows = TreeRows(SearchTree())
    assert len(tree_rows) == 0 and tree_rows.window(0, 10) == [] and list(tree_rows.walk()) == []


def test_chains_below_the_root_stay_in_their_column():
    """Best-of-N: every sample is a chain, however long."""
    grown = Growing()
    for _ in range(3):
        grown.chain(0, 3)
    assert grown.picture() == [
        "0",
        "├─1", "│ 2", "│ 3",
        "├─4", "│ 5", "│ 6",
        "└─7", "  8", "  9",
    ]  # fmt: skip


def test_a_single_chain_has_no_rails_at_all():
    grown = Growing()
    grown.chain(0, 4)
    assert grown.picture() == ["0", "1", "2", "3", "4"]


def test_rails_grow_where_a_beam_branches():
    """Beam search: two kept steps with three children each; what was pruned stands beside them, folded."""
    grown = Growing()
    first, second, third = grown.add(), grown.add(), grown.add()
    for parent in (first, third):
        for _ in range(3):
            grown.add(parent)
    grown.add(second)
    grown.prune(second)
    grown.chain(5, 2)
    assert grown.picture() == [
        "0",
        "├─1", "│ ├─4", "│ ├─5", "│ │ 11", "│ │ 12", "│ └─6",
        "├─2 +1",
        "└─3", "  ├─7", "  ├─8", "  └─9",
    ]  # fmt: skip


def test_subtrees_of_dvts_branch_once_a_step():
    grown = Growing()
    for _ in range(2):
        parent = grown.add()
        for _ in range(2):
            parent, other = grown.add(parent), grown.add(parent)
            grown.prune(other)
    assert grown.picture() == [
        "0",
        "├─1", "│ ├─2", "│ │ ├─4", "│ │ └─5", "│ └─3",
        "└─6", "  ├─7", "  │ ├─9", "  │ └─10", "  └─8",
    ]  # fmt: skip


def test_a_chain_that_branches_late_moves_only_what_is_below():
    grown = Growing()
    ids = grown.chain(0, 3)
    grown.add(ids[1])
    assert grown.picture() == ["0", "1", "2", "├─3", "└─4"]


def test_what_repeats_a_sibling_has_no_row_and_its_twin_counts_it():
    grown = Growing()
    one, two, three = grown.add(), grown.add(), grown.add()
    grown.tell(StepMerged(node=three, into=one))
    assert grown.picture() == ["0", "├─1", "└─2"]
    grown.tell(StepMerged(node=two, into=one))
    assert grown.picture() == ["0", "1"]
    assert grown.folding.times(one) == 3 and grown.folding.times(two) == 1
    assert grown.folding.index(two) is None and grown.folding.visible(two) == one


def test_a_failed_attempt_leaves_with_the_next_one():
    grown = Growing()
    failed = grown.add(slot=0, done=False)
    grown.tell(StepFailed(node=failed, error="no", usage=Usage()))
    assert grown.picture() == ["0", "1"]
    grown.add(slot=0, done=False)
    assert grown.picture() == ["0", "2"]
    grown.tell(StepFailed(node=2, error="no", usage=Usage()))
    grown.add(slot=1)
    assert grown.picture() == ["0", "├─2", "└─3"]


def test_a_failure_that_is_heard_of_late_counts_too():
    grown = Growing()
    failed = grown.add(slot=0, done=False)
    grown.folding.sync()
    grown.tree.apply(StepFailed(node=failed, error="no", usage=Usage()))
    grown.add(slot=0)
    grown.folding.sync()
    grown.folding.changed(failed)
    assert grown.picture() == ["0", "2"]


def test_a_pruned_step_folds_unless_somebody_opens_it():
    grown = Growing()
    step = grown.add()
    grown.add()
    grown.chain(step, 3)
    grown.prune(step)
    assert grown.picture() == ["0", "├─1 +3", "└─2"]
    grown.folding.toggle(step)
    grown.folding.changed(step)
    assert grown.picture() == ["0", "├─1", "│ 3", "│ 4", "│ 5", "└─2"]
    grown.restore(step)
    grown.prune(step)
    assert grown.picture() == ["0", "├─1 +3", "└─2"]
    grown.restore(step)
    assert len(grown.picture()) == 6


def test_folding_by_hand():
    grown = Growing()
    one, two, three = grown.chain(0, 3)
    leaf = grown.add()
    grown.folding.sync()
    grown.folding.close(two)
    grown.folding.close(one)
    assert grown.picture() == ["0", "├─1 +2", "└─4"]
    assert grown.folding.visible(three) == one and grown.folding.index(three) is None
    grown.folding.open(one)
    assert grown.picture() == ["0", "├─1", "│ 2 +1", "└─4"]
    grown.folding.reveal(three)
    assert grown.folding.index(three) == 3
    for nothing_to_fold in (leaf, 0):
        grown.folding.toggle(nothing_to_fold)
        assert grown.folding.is_open(nothing_to_fold) and not grown.folding.foldable(nothing_to_fold)


def test_children_of_what_is_folded_make_no_rows():
    grown = Growing()
    step = grown.add()
    grown.add(step)
    grown.folding.sync()
    grown.folding.close(step)
    grown.chain(2, 3)
    assert grown.picture() == ["0", "1 +4"]


def test_best_score_first():
    grown = Growing()
    grown.add(score=0.2)
    grown.add(1, score=0.5)
    grown.add(score=0.9)
    grown.add()
    grown.add(score=0.9)
    grown.folding.sync()
    grown.folding.set_order("score")
    assert grown.picture() == ["0", "├─3", "├─5", "├─1", "│ 2", "└─4"]
    grown.tell(StepScored(node=4, score=1.0))
    assert grown.picture()[1] == "├─4"
    grown.folding.set_order("born")
    assert grown.picture() == ["0", "├─1", "│ 2", "├─3", "├─4", "└─5"]


def test_frozen_rows_stay_while_the_others_go_on_and_hand_over_what_was_folded():
    grown = Growing()
    first = grown.add()
    grown.chain(first, 3)
    grown.picture()
    frozen = grown.folding.frozen()
    second = grown.add()
    grown.chain(second, 1)
    grown.prune(first)
    frozen.changed(first)
    frozen.sync()
    assert len(frozen) == 5 and frozen.children(0) == [first] and frozen.is_open(first)
    assert frozen.index(second) is None and frozen.visible(second) == 0
    assert grown.picture() == ["0", "├─1 +3", "└─5", "  6"]
    frozen.close(2)
    frozen.close(first)
    frozen.open(first)
    frozen.set_order("score")
    grown.folding.thaw(frozen)
    assert grown.picture() == ["0", "├─1", "│ 2 +2", "└─5", "  6"] and grown.folding.order == "score"


def test_another_view_of_the_same_run_takes_over_what_was_folded_by_hand():
    grown = Growing()
    first, second = grown.add(), grown.add()
    grown.chain(first, 2)
    grown.chain(second, 2)
    grown.prune(second)
    grown.folding.close(first)
    grown.folding.open(second)
    grown.folding.set_order("score")
    later = TreeRows(grown.tree)
    later.take_choices(grown.folding)
    earlier = TreeRows(SearchTree())
    earlier.take_choices(grown.folding)
    earlier.tree.nodes += grown.tree.nodes
    earlier.sync()
    for other in (later, earlier):
        assert other.order == "score" and other.window(0, 9) == grown.folding.window(0, 9)
        assert not other.is_open(first) and other.is_open(second)


# -- counting agrees with walking --------------------------------------------------------------------------------------


class Naive:
    """The same rows, worked out anew every time."""

    def __init__(self, tree):
        self.tree, self.opened, self.order = tree, {}, "born"

    def shown(self, node):
        tried = any(
            other.id > node.id and (other.slot, other.group) == (node.slot, node.group)
            for other in node.parent.children
        )
        return node.merged_into is None and not (node.state == "failed" and tried)

    def is_open(self, node):
        return self.opened.get(node.id, not node.pruned)

    def children(self, node):
        kids = [child for child in node.children if self.shown(child)]
        if self.order == "score":
            kids.sort(key=lambda child: (child.score is None, -(child.score or 0), child.id))
        return kids

    def below(self, node):
        return sum(1 + self.below(child) for child in self.children(node))

    def lines(self, node=None, rails="", below=""):
        node = self.tree.root if node is None else node
        kids = self.children(node)
        if not self.is_open(node):
            return [TreeLine(node.id, rails, self.below(node))]
        lines = [TreeLine(node.id, rails, 0)]
        for child in kids:
            if len(kids) == 1:
                lines += self.lines(child, below, below)
            elif child is kids[-1]:
                lines += self.lines(child, below + "└─", below + "  ")
            else:
                lines += self.lines(child, below + "├─", below + "│ ")
        return lines


def act(grown, naive, kind, a, b):
    """One thing that happens, or that a person does."""
    tree_rows, tree = grown.folding, grown.tree
    node = tree.nodes[a % len(tree.nodes)]
    if kind == "add":
        grown.add(a % len(tree.nodes), slot=b % 3, score=None if b % 4 == 0 else b % 10 / 10, done=b % 5 != 0)
    elif kind == "wide":
        for _ in range(40):
            grown.add(a % len(tree.nodes))
    elif kind in ("order",):
        naive.order = ("born", "score")[b % 2]
        tree_rows.set_order(naive.order)
    elif node is tree.root:
        return
    elif kind in ("prune", "restore"):
        if node.pruned != (kind == "prune"):
            naive.opened.pop(node.id, None)
        getattr(grown, kind)(node.id)
    elif kind == "score":
        grown.tell(StepScored(node=node.id, score=b % 10 / 10))
    elif kind == "fail" and node.state == "writing":
        grown.tell(StepFailed(node=node.id, error="no", usage=Usage()))
    elif kind == "merge" and node.merged_into is None:
        older = [other.id for other in node.parent.children if other.id < node.id]
        if older:
            grown.tell(StepMerged(node=node.id, into=older[b % len(older)]))
    elif kind == "toggle":
        tree_rows.sync()
        opened = naive.is_open(node)
        if naive.children(node) or not opened:
            naive.opened[node.id] = not opened
        tree_rows.toggle(node.id)
    elif kind == "reveal":
        tree_rows.sync()
        tree_rows.reveal(node.id)
        while node.parent is not None:
            node = node.parent
            naive.opened[node.id] = True


KINDS = ("add", "add", "add", "wide", "prune", "restore", "score", "fail", "merge", "toggle", "reveal", "order")


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 200), st.integers(0, 60)), max_size=60),
    st.sampled_from([1, 3, 1000]),
)
@settings(max_examples=300, deadline=None)
def test_counted_rows_are_the_rows_of_a_walk(history, bulk):
    before, row_counts._BULK = row_counts._BULK, bulk
    try:
        grown = Growing()
        naive = Naive(grown.tree)
        for number, step in enumerate(history):
            act(grown, naive, *step)
            if number % 3 == 0:
                grown.folding.sync()
        tree_rows, lines = grown.folding, naive.lines()
        tree_rows.sync()
    finally:
        row_counts._BULK = before
    assert len(tree_rows) == len(lines)
    assert tree_rows.window(0, len(lines) + 5) == lines
    rows = {line.id: row for row, line in enumerate(lines)}
    for top in range(-1, len(lines) + 1, 7):
        for height in (0, 1, 5, 40):
            assert tree_rows.window(top, height) == lines[max(top, 0) :][:height]
    assert [tree_rows.at(row) for row in range(len(lines))] == [line.id for line in lines]
    for node in grown.tree.nodes:
        assert tree_rows.index(node.id) == rows.get(node.id)
        assert tree_rows.visible(node.id) in rows
    everything = list(tree_rows.walk())
    assert [id for id in everything if id in rows] == [line.id for line in lines]
    fresh = TreeRows(grown.tree)
    assert set(fresh.walk()) == set(everything)


@pytest.mark.parametrize("row", [-1, 1])
def test_there_is_nothing_beside_the_rows(row):
    with pytest.raises(IndexError):
        Growing().folding.at(row)


# -- work --------------------------------------------------------------------------------------------------------------


def lines_run(work):
    """How many lines of the modules `work` runs: a measure of work that does not depend on the machine."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if frame.f_code.co_filename not in (row_counts.__file__, tree_rows.__file__):
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def grown_tree(nodes, width=4):
    grown = Growing()
    for number in range(1, nodes):
        grown.add((number - 1) // width)
    grown.folding.sync()
    return grown


def test_a_window_costs_what_it_shows():
    small, large = grown_tree(300), grown_tree(10_000)
    few = lines_run(lambda: small.folding.window(150, 40))
    many = lines_run(lambda: large.folding.window(5_000, 40))
    assert many < 2 * few


def test_a_window_below_a_wide_root_reads_blocks():
    grown = grown_tree(5_000, width=10_000)
    grown.folding.window(0, 2)
    assert lines_run(lambda: grown.folding.window(4_900, 40)) < 5_000
    grown.add()
    grown.folding.sync()
    assert grown.folding.at(5_000) == 5_000 and grown.folding.index(5_000) == 5_000


def test_a_new_step_costs_its_depth():
    grown = grown_tree(10_000)
    grown.add(5_000)
    assert lines_run(grown.folding.sync) < 200


def test_a_path_may_be_deeper_than_the_stack():
    grown = Growing()
    ids = grown.chain(0, 5_000)
    assert grown.picture(4_990) == [str(id) for id in ids[4_989:]]
    grown.add(ids[0])
    for id in ids:
        grown.add(id)
    grown.folding.sync()
    assert len(grown.folding.window(4_000, 50)) == 50
    assert sum(1 for _ in grown.folding.walk()) == len(grown.tree.nodes)


def test_a_node_costs_few_bytes():
    grown = grown_tree(20_000)
    tracemalloc.start()
    tree_rows = TreeRows(grown.tree)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(tree_rows) == 20_000 and size / 20_000 < 60
