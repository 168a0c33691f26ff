"""The tree view in a terminal without a screen: what it shows, what keys and mouse do, and how little it paints."""

from __future__ import annotations

import contextlib
import re

import pytest
from textual.app import App
from textual.events import MouseScrollDown

from tests.ui.test_tree_rows import Growing
from tts_tui import Plan, Usage
from tts_tui.protocols import ModelInfo
from tts_tui.tree.events import (
    NodesPruned,
    SearchStarted,
    SolutionFound,
    StepFailed,
    StepMerged,
    StepScored,
    StepStreamed,
)
from tts_tui.tree.search_tree import SearchTree
from tts_tui.ui.row_looks import best
from tts_tui.ui.tree_rows import TreeRows
from tts_tui.ui.widgets.rows_view import CALM, GROWING
from tts_tui.ui.widgets.tree_view import TreeView

EVIL = "a\x1b[31mred [bold]mark[/bold] [/] \x9b5m\u202eright\u200b 宽宽\r\x00 :smile:\n\nb"


class Run(Growing):
    """A run as the view needs it."""

    def __init__(self):
        super().__init__()
        self.writing = {}

    def begin(self, parent=0):
        node = self.add(parent, done=False)
        self.writing[node] = None
        return node

    def stream(self, node, text):
        self.tree.apply(StepStreamed(node=node, text=text, usage=Usage(completion=1)))


class Shell(App):
    """An app with nothing but the view."""

    def __init__(self, run=None):
        super().__init__()
        self.run_shown = run
        self.opened = []

    def compose(self):
        yield TreeView()

    def on_mount(self):
        if self.run_shown is not None:
            self.view.show(self.run_shown)
            self.view.focus()

    @property
    def view(self):
        return self.query_one(TreeView)

    def on_tree_view_opened(self, message):
        self.opened.append(message.node)


def screen(app):
    """The lines that stand on the screen."""
    lines = ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]
    return [line.rstrip() for line in lines]


def small():
    """0 ─ 1 ─ (2, 3 ─ 4), 5."""
    run = Run()
    for parent, score in ((0, 0.9), (1, 0.5), (1, 0.8), (3, 0.25), (0, 0.1)):
        run.add(parent, score=score)
    return run


def started(problem):
    return SearchStarted(
        problem=problem, plan=Plan(), policy=ModelInfo("m", 1, 9), prm=None, prompt_ids=(), version="", created=""
    )


def large(nodes=2_000, width=4):
    run = Run()
    for number in range(1, nodes):
        run.add((number - 1) // width, score=number % 100 / 100)
    return run


@contextlib.asynccontextmanager
async def shell(run, size=(60, 10)):
    """The app with the view on `run`, its pilot, and the view."""
    app = Shell(run)
    async with app.run_test(size=size) as pilot:
        await pilot.pause()
        yield app, pilot, app.view


async def pull(pilot, tick=0):
    """One tick of a screen's timer, and what it has painted."""
    rows = pilot.app.view.pull(tick)
    await pilot.pause()
    return rows


# -- what it shows -----------------------------------------------------------------------------------------------------


async def test_rows_have_score_bar_rails_mark_and_text():
    async with shell(small()) as (app, _, _):
        assert screen(app)[:7] == [
            "           p",
            " .90 █████▍ ├─▾ s1",
            " .50 ███    │ ├─s2",
            " .80 ████▊  │ └─▾ s3",
            " .25 █▌     │   s4",
            " .10 ▋      └─s5",
            "",
        ]


async def test_state_is_a_glyph_and_a_word():
    run = small()
    run.tell(NodesPruned(nodes=(1,), why="w"))
    failed = run.add(done=False)
    run.tell(StepFailed(node=failed, error="no", usage=Usage()))
    run.tell(SolutionFound(node=5, answer="42"))
    twin = run.add(text="s5")
    run.tell(StepMerged(node=twin, into=5))
    run.begin()
    mine = run.add(text="mine")
    run.tree.nodes[mine].by_hand = True
    gone = run.add(text="gone")
    run.tree.nodes[gone].cut = True
    async with shell(run) as (app, _, _):
        assert [line[12:] for line in screen(app)[1:8]] == [
            "├─▸ ✗ pruned s1 +3 folded",
            "├─★ answer 42 ×2 s5",
            "├─! failed (no)",
            "├─⠋ writing",
            "├─✎ yours mine",
            "└─✗ cut gone",
            "",
        ]


async def test_scores_as_bars_colours_or_digits_of_steps_or_paths():
    async with shell(small()) as (app, pilot, view):
        assert view.cycle_heat() == "colour"
        await pilot.pause()
        assert screen(app)[1] == " .90  ├─▾ s1" and view.cycle_heat() == "digits"
        assert view.cycle_value() == "min"
        await pilot.pause()
        assert [line[:6].strip() for line in screen(app)[1:6]] == [".90", ".50", ".80", ".25", ".10"]
        assert view.cycle_value() == "prod"
        await pilot.pause()
        assert [line[:6].strip() for line in screen(app)[1:6]] == [".90", ".45", ".72", ".18", ".10"]
        assert (view.cycle_value(), view.cycle_heat()) == ("score", "bar")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 20), (5, 4), (10, 20), (12, 1), (17, 20), (39, 4), (80, 20)])
async def test_whatever_a_model_writes_fits_whatever_terminal(width, height):
    run = Run()
    for text in (EVIL, "宽" * 300, "", "\u0301" * 50, "[/]", "é" * 90):
        parent = run.add(text=text, score=0.5)
        run.add(parent, text=text)
        run.tell(SolutionFound(node=parent, answer=text))
    run.stream(run.begin(), EVIL)
    async with shell(run, (width, height)) as (app, pilot, view):
        for _ in range(4):
            await pilot.press("pagedown", "left")
            view.cycle_heat()
            view.find("宽")
            await pull(pilot)
        lines = "".join(screen(app))
        assert "\x1b" not in lines and "\u202e" not in lines and "\u200b" not in lines
        assert all(strip.cell_length == width for strip in app.screen._compositor.render_strips())


async def test_a_view_of_nothing_does_nothing():
    async with shell(None) as (_, pilot, view):
        view.focus()
        await pilot.press("j", "k", "G", "g", "left", "right", "enter", "pagedown")
        assert view.pull(0) == 0 and view.cursor_node is None and view.find("a") == (0, 0)
        assert view.cycle_order() == "born" and view.toggle_freeze() and not view.toggle_freeze()
        run = Run()
        run.tree = SearchTree()
        run.folding = TreeRows(run.tree)
        view.show(run)
        await pilot.press("j", "G", "left", "right", "enter")
        assert view.pull(0) == 0 and view.cursor_node is None
        run.tree.apply(
            SearchStarted(
                problem="q", plan=Plan(), policy=ModelInfo("m", 1, 9), prm=None, prompt_ids=(), version="", created=""
            )
        )
        assert await pull(pilot) == 1 and view.cursor_node == 0
        assert screen(pilot.app)[0].strip() == "q"


async def test_the_cursor_is_seen_without_colours():
    async with shell(small()) as (app, pilot, view):
        assert all(segment.style.reverse for segment in view.render_line(0))
        await pilot.press("j")
        assert [segment.text for segment in view.render_line(1) if not segment.style.reverse] == ["█████▍"]
        await pilot.press("k")
        assert not any(segment.style.reverse for segment in view.render_line(1))
        app.set_focus(None)
        await pilot.pause()
        cursor = list(view.render_line(0))
        assert all(segment.style.bold and not segment.style.reverse for segment in cursor)


async def test_another_theme_is_painted_anew():
    async with shell(small()) as (app, pilot, view):
        before = view.render_line(2)
        app.theme = "textual-light"
        await pilot.pause()
        assert view.render_line(2).text == before.text
        assert list(view.render_line(2))[-1].style.bgcolor != list(before)[-1].style.bgcolor


# -- how little it paints ----------------------------------------------------------------------------------------------


class Counting(TreeView):
    """Counts its lines and layouts."""

    lines = layouts = 0

    def render_line(self, y):
        self.lines += 1
        return super().render_line(y)

    def refresh(self, *regions, repaint=True, layout=False, recompose=False):
        self.layouts += layout
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)


class CountingShell(Shell):
    def compose(self):
        yield Counting()


async def test_a_pull_paints_rows_that_look_different_and_no_others():
    run = large()
    writing = run.begin(1)
    app = CountingShell(run)
    async with app.run_test(size=(80, 20)) as pilot:
        await pilot.pause()
        view = app.view
        view.select(writing)
        await pilot.pause()
        assert await pull(pilot) == 0
        view.lines = view.layouts = 0
        for number in range(20):
            for _ in range(50):
                run.add(1_500)
            run.stream(writing, f"word{number} ")
            assert await pull(pilot) == 1
        assert view.lines == 20 and view.layouts == 0
        assert f"word{number}" in screen(app)[folding_row(view, writing)]
        assert view.virtual_size.height == len(run.tree.nodes) == view.vertical_scrollbar.window_virtual_size


def folding_row(view, id):
    return view._shown.folding.index(id) - view.scroll_offset.y


async def test_a_spinner_turns_at_every_third_pull():
    run = Run()
    run.begin()
    async with shell(run) as (_, pilot, _):
        assert [await pull(pilot, tick) for tick in range(1, 10)] == [0, 0, 1, 0, 0, 1, 0, 0, 1]


async def test_many_growing_rows_take_turns_and_each_has_its_own():
    run = Run()
    growing = [run.begin() for _ in range(16)]
    async with shell(run, (60, 24)) as (app, pilot, _):
        await pull(pilot)
        painted = []
        for tick in range(8):
            for id in growing:
                run.stream(id, f"{tick}")
            painted.append(await pull(pilot, tick))
        assert max(painted) <= GROWING and sum(painted) >= 16
        assert all(re.search(r"writing \d{4,}", line) for line in screen(app)[1:17])


async def test_new_rows_wait_a_moment_while_many_steps_grow():
    run = Run()
    for _ in range(30):
        run.add(score=0.5)
    for _ in range(8):
        run.begin(30)
    async with shell(run, (60, 24)) as (_, pilot, view):
        painted = []
        for tick in range(60):
            run.add(1, score=0.5)  # moves all rows below
            painted.append(await pull(pilot, tick))
        assert sum(painted) <= 60 * CALM + 24 and max(painted) > 20 and painted.count(0) > 30
        view.calm = False
        await pull(pilot, 60)
        assert [row.id for row in view._rows] == [
            line.id for line in run.folding.window(view.scroll_offset.y, len(view._rows))
        ]


async def test_a_hand_moves_from_what_stands_on_the_screen_though_new_rows_wait():
    run = large(400)
    for _ in range(8):
        run.begin(0)
    async with shell(run, (60, 24)) as (_, pilot, view):
        view.select(100)
        for tick in range(3):
            run.add(1)
            run.add(2)
            await pull(pilot, tick)
        row = next(y for y, row in enumerate(view._rows) if row.cursor)
        below = view._rows[row + 1].id
        for _ in range(5):
            run.add(1)
        await pilot.press("down")
        assert view.cursor_node == below
        assert [y for y, row in enumerate(view._rows) if row.cursor] == [row + 1]


async def test_the_scrollbar_comes_with_one_layout():
    run = Run()
    app = CountingShell(run)
    async with app.run_test(size=(40, 10)) as pilot:
        await pilot.pause()
        app.view.layouts = 0
        for _ in range(40):
            run.add()
            await pull(pilot)
        assert app.view.layouts <= 2 and app.view.show_vertical_scrollbar
        assert app.view.max_scroll_y == 31 and all(
            strip.cell_length == 38 for strip in map(app.view.render_line, range(10))
        )


# -- cursor and scrolling ----------------------------------------------------------------------------------------------


async def test_keys_move_the_cursor():
    async with shell(small()) as (_, pilot, view):
        went = []
        for key in ("j", "down", "k", "G", "j", "g", "up", "end", "home", "pagedown", "pageup"):
            await pilot.press(key)
            went.append(view.cursor_node)
        assert went == [1, 2, 1, 5, 5, 0, 0, 5, 0, 5, 0]


async def test_left_and_right_fold_and_climb():
    async with shell(small()) as (app, pilot, view):
        await pilot.press("right", "right", "down", "right")
        assert view.cursor_node == 4
        await pilot.press("left", "left")
        assert view.cursor_node == 3 and screen(app)[3].endswith("└─▸ s3 +1 folded")
        await pilot.press("left", "left", "left")
        assert view.cursor_node == 0 and len(view._shown.folding) == 3
        await pilot.press("down", "right", "right", "down", "right")
        assert view.cursor_node == 3 and len(view._shown.folding) == 6


async def test_enter_folds_and_opens_what_has_nothing_to_fold():
    async with shell(small()) as (app, pilot, view):
        await pilot.press("down", "enter")
        assert screen(app)[1].endswith("├─▸ s1 +3 folded") and len(view._shown.folding) == 3
        await pilot.press("enter", "down", "enter")
        assert len(view._shown.folding) == 6 and app.opened == [2]


async def test_the_mouse_selects_folds_and_scrolls():
    async with shell(large(), (60, 10)) as (app, pilot, view):
        await pilot.click(offset=(30, 2))
        assert view.cursor_node == 5
        await pilot.click(offset=(screen(app)[2].index("▾"), 2))
        assert screen(app)[2].endswith("folded")
        await pilot.click(offset=(30, 3))
        await pilot.click(offset=(30, 3), times=2)
        assert screen(app)[3].endswith("folded")
        view.follow = "newest"
        await pilot._post_mouse_events([MouseScrollDown], view, (5, 5), button=0)
        await pilot.pause()
        assert view.follow == "off"


async def test_cursor_and_scroll_hold_on_to_steps():
    run = large()
    async with shell(run, (60, 20)) as (app, pilot, view):
        view.select(1_000)
        await pilot.pause()
        line = folding_row(view, 1_000)
        stood = screen(app)[line]
        for _ in range(30):
            run.add(1)
        assert await pull(pilot) == 0
        assert view.cursor_node == 1_000 and folding_row(view, 1_000) == line and screen(app)[line] == stood
        run.tell(NodesPruned(nodes=(2,), why="w"))
        await pull(pilot)
        assert folding_row(view, 1_000) == line
        view.scroll_to(y=1_200, animate=False)
        await pilot.pause()
        first = view._rows[0].id
        for _ in range(30):
            run.add(1)
        await pull(pilot)
        assert view._rows[0].id == first and view.cursor_node == 1_000


async def test_what_is_folded_away_leaves_the_cursor_on_what_hides_it():
    run = small()
    async with shell(run) as (_, pilot, view):
        view.select(4)
        run.tell(NodesPruned(nodes=(1,), why="w"))
        await pull(pilot)
        assert view.cursor_node == 1
        view.select(4)
        assert view.cursor_node == 4 and view._shown.folding.is_open(1)
        twin = run.add(1, text="s2")
        run.tell(StepMerged(node=twin, into=2))
        view.select(twin)
        assert view.cursor_node == 2


async def test_following_the_newest_step_until_a_hand_moves():
    run = large()
    async with shell(run, (60, 12)) as (_, pilot, view):
        assert view.cycle_follow() == "newest"
        for parent in (1_999, 7, 900):
            newest = run.add(parent)
            await pull(pilot)
            assert view.cursor_node == newest and 0 <= folding_row(view, newest) < 12
        await pilot.press("k")
        assert view.follow == "off"
        run.add(3)
        here = view.cursor_node
        await pull(pilot)
        assert view.cursor_node == here


async def test_following_the_best_step():
    run = large()
    async with shell(run, (60, 12)) as (_, pilot, view):
        view.follow = "best"
        await pull(pilot)
        assert run.tree.nodes[view.cursor_node].score == 0.99
        for score, answer in ((0.3, "1"), (0.4, "2"), (0.2, "3")):
            run.tell(SolutionFound(node=run.add(50, score=score), answer=answer))
        await pull(pilot)
        assert view.cursor_node == 2_001
        run.tree.nodes[50].cut = True
        assert best(run.tree).score == 0.99 and best(SearchTree()) is None


async def test_a_frozen_view_stands_still_and_then_shows_everything():
    run = large()
    writing = run.begin()
    async with shell(run, (60, 20)) as (app, pilot, view):
        await pilot.press("j", "j")
        assert view.toggle_freeze()
        stood = screen(app)
        run.tell(StepScored(node=1, score=0.99))
        run.tell(NodesPruned(nodes=(5,), why="w"))
        for _ in range(30):
            run.add()
        assert await pull(pilot, 9) == 0 and len(view._folding) == 2_001
        await pilot.press("j", "k")
        assert screen(app) == stood
        await pilot.press("G")
        assert view.cursor_node == writing
        await pilot.press("g")
        assert not view.toggle_freeze()
        await pull(pilot, 10)
        assert screen(app)[1].startswith(" .99") and "✗ pruned" in screen(app)[2]
        await pilot.press("G")
        assert view.cursor_node == 2_030


async def test_a_view_that_goes_while_it_is_frozen_leaves_the_others_alive():
    run = large()
    async with shell(run) as (app, pilot, view):
        other = TreeView()
        await app.mount(other)
        other.show(run)
        assert other.toggle_freeze()
        await other.remove()
        newest = run.add()
        view.follow = "newest"
        await pull(pilot)
        assert view.cursor_node == newest


async def test_what_is_folded_in_a_frozen_view_stays_so():
    run = small()
    async with shell(run) as (app, pilot, view):
        view.toggle_freeze()
        view.select(3)
        view.toggle(3)
        assert screen(app)[3].endswith("└─▸ s3 +1 folded") and run.folding.is_open(3)
        again = Run()
        again.tree, again.folding = run.tree, run.folding
        view.show(again)
        await pull(pilot)
        assert not view.frozen and view.cursor_node == 3 and screen(app)[3].endswith("└─▸ s3 +1 folded")


async def test_the_cursor_has_a_step_in_every_moment_of_its_run():
    run = large()
    async with shell(run) as (_, _, view):
        view.select(1_500)
        earlier = SearchTree()
        assert view.cursor_in(earlier) is None
        earlier.apply(run.tree.start)
        assert view.cursor_in(earlier) is earlier.root
        other = SearchTree()
        other.apply(started("z"))
        assert view.cursor_in(other) is None and view.cursor_in(run.tree) is run.tree.nodes[1_500]


async def test_ordered_by_score_the_cursor_keeps_its_step():
    run = small()
    async with shell(run) as (app, pilot, view):
        view.select(2)
        assert view.cycle_order() == "score"
        await pilot.pause()
        assert view.cursor_node == 2 and [line[-2:] for line in screen(app)[1:6]] == ["s1", "s3", "s4", "s2", "s5"]
        run.tell(StepScored(node=5, score=1.0))
        await pull(pilot)
        assert screen(app)[1].endswith("├─s5") and view.cycle_order() == "born"


async def test_another_run_is_shown_from_its_start_and_the_same_one_where_it_was():
    run = large()
    async with shell(run, (60, 12)) as (_, pilot, view):
        view.select(1_500)
        again = Run()
        again.tree = SearchTree()
        again.tree.apply(run.tree.start)
        again.folding = TreeRows(again.tree)
        for number in range(1, 400):
            again.add((number - 1) // 4)
        view.show(again)
        await pilot.pause()
        assert view.cursor_node == 374 and 0 <= folding_row(view, 374) < 12
        other = small()
        other.tree.started = started("z")
        view.show(other)
        await pilot.pause()
        assert view.cursor_node == 0 and view.scroll_offset.y == 0 and screen(pilot.app)[0].strip() == "z"


async def test_a_smaller_terminal_keeps_the_cursor_in_view():
    async with shell(large(), (100, 30)) as (app, pilot, view):
        await pilot.press(*["j"] * 25)
        row = view.cursor_node
        await pilot.resize_terminal(30, 6)
        await pilot.pause()
        assert 0 <= folding_row(view, row) < 6
        assert all(strip.cell_length == 30 for strip in app.screen._compositor.render_strips())


# -- finding -----------------------------------------------------------------------------------------------------------


async def test_find_goes_round_in_the_order_of_rows_and_opens_what_hides():
    run = small()
    run.tree.nodes[2].text = "The Needle"
    run.tree.nodes[5].text = "needles, " * 30
    run.tell(SolutionFound(node=4, answer="NEEDLE"))
    async with shell(run) as (_, pilot, view):
        view._shown.folding.close(1)
        await pull(pilot)
        assert [view.find("needle") for _ in range(4)] == [(1, 3), (2, 3), (3, 3), (1, 3)]
        assert view.cursor_node == 2 and view.find("needle", backwards=True) == (3, 3)
        assert view.find("needles") == (1, 1) and view.cursor_node == 5
        assert view.find("nothing of that") == (0, 0) and view.cursor_node == 5
        assert view.find("THE", backwards=True) == (1, 1) and view.cursor_node == 2
        await pilot.pause()
        found = [segment.text for segment in view.render_line(2) if segment.style.underline]
        assert found == ["The"] and view.find("") == (0, 0)
        await pilot.pause()
        assert not any(segment.style.underline for segment in view.render_line(2))


async def test_what_is_found_beyond_the_drawn_text_marks_the_whole_row():
    run = Run()
    run.add(text="x" * 500 + " needle")
    async with shell(run) as (_, pilot, view):
        assert view.find("needle") == (1, 1)
        await pilot.pause()
        assert any(segment.style.underline and "xxx" in segment.text for segment in view.render_line(1))


def test_bindings_can_be_named_and_say_what_they_do():
    bindings = TreeView.BINDINGS
    assert all(binding.id.startswith("tree.") and binding.tooltip and not binding.show for binding in bindings)
    keys = {key for binding in bindings for key in binding.key.split(",")}
    assert not keys & {"space", *"xesbfhvoz/nNyw"}
