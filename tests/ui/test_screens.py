"""Every key of every screen, pressed: what it does, and what it says where it cannot do anything."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace
from textual.content import Content
from textual.events import Paste
from textual.widgets import Input

from tests.scripted import SEPARATOR
from tests.tree.test_recording import picture as fold
from tests.ui.staging import PLAN, make, models, picture, policy_of, running, solved, tick, until
from tts_tui import SearchTree, load, read
from tts_tui.displays import signals
from tts_tui.errors import BackendError, UsageError
from tts_tui.formatting import one_line
from tts_tui.plan import Plan
from tts_tui.tree.events import encode
from tts_tui.tree.recording import Recording
from tts_tui.ui import keys
from tts_tui.ui.app import TTSApp
from tts_tui.ui.drivers import InputEnded
from tts_tui.ui.screens.compare import CompareScreen
from tts_tui.ui.screens.dialogs import ChoiceDialog, Question, Write
from tts_tui.ui.screens.help import Help
from tts_tui.ui.screens.home import EXAMPLES, WELCOME, HomeScreen
from tts_tui.ui.screens.plan import PlanForm
from tts_tui.ui.screens.run import RunScreen
from tts_tui.ui.widgets.prompt import ProblemInput


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TTS_TUI_CONFIG", str(tmp_path / "none.toml"))


def toasts(app):
    return [notice.message for notice in app._notifications]


def recordings(tmp_path):
    return sorted((tmp_path / "home" / "runs").glob("*.jsonl"))


# -- home --------------------------------------------------------------------------------------------------------------


async def test_an_empty_start_explains_itself():
    app = make()
    async with running(app) as pilot:
        shown = " ".join(picture(app).split())
        assert WELCOME[:40] in shown
        assert EXAMPLES[0] in shown
        assert "policy scripted" in shown and "beam N 8 M 4" in shown
        assert isinstance(app.focused, ProblemInput)
        await pilot.press("enter")
        assert any("Type a problem first" in said for said in toasts(app))
        assert not app.runners


async def test_a_typed_problem_of_several_lines_is_solved_as_it_was_typed():
    app = make()
    async with running(app) as pilot:
        await pilot.press(*"What is", "space", "$", "backslash", *"pi", "$", "question_mark")
        await pilot.press("ctrl+j", *"Say", "shift+enter", *"it")
        await pilot.press("enter")
        await until(lambda: app.runners and app.runners[0].done, pilot)
        assert app.runners[0].model.tree.start.problem == "What is $\\pi$?\nSay\nit"
        assert isinstance(app.screen, RunScreen)


async def test_examples_come_by_one_key_and_by_their_number():
    app = make()
    async with running(app) as pilot:
        field = app.screen.query_one("#problem", ProblemInput)
        await pilot.press("ctrl+t")
        assert field.text == EXAMPLES[0]
        await pilot.press("ctrl+t")
        assert field.text == EXAMPLES[1]
        await pilot.press("tab", "4")
        assert field.text == EXAMPLES[3]
        await pilot.press("5")
        assert field.text == EXAMPLES[3] + "5", "in the field a digit is a digit"


async def test_runs_are_kept_and_listed_and_open_again(tmp_path):
    app = make()
    async with running(app) as pilot:
        runner = await solved(app, pilot)
        await pilot.press("escape")
        assert isinstance(app.screen, HomeScreen)
        (path,) = recordings(tmp_path)
        assert fold(load(path)) == fold(runner.model.tree)
        await pilot.press("ctrl+r", "down", "enter")
        await until(lambda: isinstance(app.screen, RunScreen), pilot)
        assert app.screen.player is not None and app.screen.player.at_end
        assert runner.model.tree.finished.answer in picture(app)


async def test_a_recording_is_removed_after_a_question(tmp_path):
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        await pilot.press("escape", "ctrl+r", "down", "delete")
        assert isinstance(app.screen, Question)
        await pilot.press("n")
        assert len(recordings(tmp_path)) == 1
        await pilot.press("delete", "y")
        await until(lambda: not recordings(tmp_path), pilot)


async def test_without_recording_nothing_is_written(tmp_path):
    app = make(record=False)
    async with running(app) as pilot:
        await solved(app, pilot)
    assert not (tmp_path / "home").exists() or not recordings(tmp_path)


async def test_a_folder_that_cannot_be_written_costs_the_recording_and_not_the_search(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TTS_TUI_HOME", str(blocked))
    app = make()
    async with running(app) as pilot:
        runner = await solved(app, pilot)
        assert runner.model.tree.finished.answer is not None
        assert any("Not recorded" in said for said in toasts(app))


# -- the plan ----------------------------------------------------------------------------------------------------------


async def test_the_plan_is_changed_before_a_run():
    app = make()
    async with running(app) as pilot:
        await pilot.press("ctrl+o")
        form = app.screen
        assert isinstance(form, PlanForm)
        form.query_one("#strategy").value = "majority"
        await pilot.pause()
        form.query_one("#n").value = "3"
        form.query_one("#tokens").value = "5000"
        await pilot.press("ctrl+s")
        assert (app.plan.strategy, app.plan.n, app.plan.vote) == ("majority", 3, "majority")
        assert app.plan.budget.tokens == 5000
        assert app.plan.why == "chosen by the user"


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("n", "7", "n=7 is not divisible by m=4"),
        ("n", "many", "is no whole number"),
        ("n", "", "is no whole number"),
        ("temperature", "-1", "temperature must not be negative"),
        ("tokens", "0", "budget of tokens must be positive"),
        ("seconds", "nan", "budget of seconds must be positive"),
    ],
)
async def test_a_plan_that_cannot_run_is_refused_in_the_form(field, text, said):
    app = make()
    async with running(app) as pilot:
        await pilot.press("ctrl+o")
        app.screen.query_one(f"#{field}").value = text
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert isinstance(app.screen, PlanForm)
        assert said in " ".join(picture(app).split())
        await pilot.press("escape")
        assert app.plan == PLAN


async def test_leaving_the_form_changes_nothing():
    app = make()
    async with running(app) as pilot:
        await pilot.press("ctrl+o")
        app.screen.query_one("#n").value = "4"
        await pilot.press("escape")
        assert app.plan == PLAN


# -- a run -------------------------------------------------------------------------------------------------------------


async def test_a_run_shows_tree_answers_decisions_and_plan():
    app = make()
    async with running(app, (140, 40)) as pilot:
        runner = await solved(app, pilot)
        shown = picture(app)
        tree = runner.model.tree
        assert f"★ {tree.finished.answer}" in shown
        assert "Step 1: thought" in shown
        assert "Kept " in shown and "pruned" in shown
        assert "beam N 8 M 4" in shown and "chosen by the test" in shown
        assert "cached" in shown and "FLOP" in shown


@pytest.fixture
def held():
    """An app whose policy writes only when it is let."""
    own = models()
    own.solver.policy.hold = asyncio.Event()
    return make(own=own)


async def begun(app, pilot, running_streams=8):
    runner = app.begin("What is it?")
    await until(lambda: runner.running, pilot)
    await policy_of(app).reached(running_streams)
    tick(app)
    await pilot.pause()
    return runner


async def paused(app, pilot, key="space"):
    """A run that has begun paused, for space was pressed before its models were there."""
    load, loaded = app.models.load, asyncio.Event()

    async def late():
        await loaded.wait()
        return await load()

    app.models.load = late
    runner = app.begin("What is it?")
    await until(lambda: isinstance(app.screen, RunScreen), pilot)
    await until(lambda: app.screen.stands, pilot)
    await pilot.press(key)
    loaded.set()
    await until(lambda: runner.model.tree.paused, pilot)
    return runner


async def test_space_pauses_and_goes_on(held):
    async with running(held) as pilot:
        runner = await begun(held, pilot)
        await pilot.press("space")
        assert runner.model.tree.paused
        policy_of(held).hold.set()
        await until(lambda: not runner.model.writing, pilot)
        tick(held)
        await pilot.pause()
        assert "‖ paused" in picture(held)
        await pilot.press("space")
        await until(lambda: runner.done, pilot)
        assert runner.model.tree.finished.reason == "solved"


async def test_a_run_may_begin_paused():
    app = make()
    async with running(app) as pilot:
        runner = await paused(app, pilot)
        assert len(runner.model.tree) == 0
        await pilot.press("space")
        await until(lambda: runner.done, pilot)


async def test_one_step_and_one_round_at_a_time():
    app = make()
    async with running(app) as pilot:
        runner = await paused(app, pilot)
        await pilot.press("s")
        await until(lambda: len(runner.model.tree) == 1 and not runner.model.writing, pilot)
        await pilot.press("s")
        await until(lambda: len(runner.model.tree) == 2 and not runner.model.writing, pilot)
        await pilot.press("S")
        await until(lambda: len(runner.model.tree) == 8 and not runner.model.writing, pilot)
        assert runner.model.tree.paused
        await pilot.press("t")
        await until(lambda: runner.done, pilot)
        assert runner.model.tree.finished.reason == "interrupted"


async def test_expanding_cutting_restoring_and_writing_by_hand():
    app = make()
    async with running(app) as pilot:
        runner = await paused(app, pilot)
        await pilot.press("S")
        await until(lambda: len(runner.model.tree) >= 8 and not runner.model.writing, pilot)
        tree, view = runner.model.tree, app.screen.tree_view
        tick(app)
        first = tree.nodes[1]
        view.select(first.id)
        await pilot.press("e")
        await until(lambda: sum(1 for node in tree.nodes if node.by_hand and node.state == "done") >= 4, pilot)
        await pilot.press("x")
        assert first.cut
        await pilot.press("x")
        assert not first.cut and not first.pruned
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Write) and isinstance(app.focused, ProblemInput), pilot)
        await pilot.press(*"Mine", "enter")
        await until(lambda: any(node.text.startswith("Mine") for node in tree.nodes), pilot)
        tick(app)
        await pilot.pause()
        assert "yours" in picture(app)
        await pilot.press("space")
        await until(lambda: runner.done, pilot)
        mine = next(node for node in tree.nodes if node.text.startswith("Mine"))
        assert mine.children, "the search goes on from there"


async def test_a_written_step_may_be_given_up():
    app = make()
    async with running(app) as pilot:
        runner = await paused(app, pilot)
        before = len(runner.model.tree)
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Write) and isinstance(app.focused, ProblemInput), pilot)
        await pilot.press(*"Mine", "escape")
        assert isinstance(app.screen, RunScreen)
        assert len(runner.model.tree) == before


async def test_the_plan_is_changed_while_it_runs(held):
    async with running(held) as pilot:
        runner = await begun(held, pilot)
        await pilot.press("p")
        held.screen.query_one("#vote").value = "majority"
        held.screen.query_one("#seconds").value = "600"
        await pilot.pause()
        await pilot.press("ctrl+s")
        assert runner.model.tree.plan.vote == "majority"
        assert runner.model.tree.plan.budget.seconds == 600
        policy_of(held).hold.set()
        await until(lambda: runner.done, pilot)
        assert runner.model.tree.finished.plan.vote == "majority"


async def test_a_fork_is_a_new_run_and_the_old_one_stays(tmp_path):
    app = make()
    async with running(app) as pilot:
        old = await solved(app, pilot)
        before = fold(old.model.tree)
        node = old.model.tree.nodes[1]
        app.screen.tree_view.select(node.id)
        await pilot.press("b")
        assert isinstance(app.screen, PlanForm)
        await pilot.press("ctrl+s")
        await until(lambda: len(app.runners) == 2 and app.runners[1].done, pilot)
        new = app.runners[1].model.tree
        assert app.runners[1].trouble == ""
        assert new.nodes[1].text == node.text and new.start.origin.node == node.id
        assert fold(old.model.tree) == before
        assert len(recordings(tmp_path)) == 2


async def test_what_needs_a_running_search_says_so_when_it_is_over():
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        for key in ("e", "x", "i", "s", "S", "t", "space"):
            app.clear_notifications()
            await pilot.press(key)
            assert any("search is over" in said for said in toasts(app)), key
        app.clear_notifications()
        await pilot.press("left_square_bracket")
        assert any("for replays" in said for said in toasts(app))


async def test_stopping_takes_the_best_so_far(held):
    async with running(held) as pilot:
        runner = await begun(held, pilot)
        await pilot.press("t")
        await until(lambda: runner.done, pilot)
        assert runner.model.tree.finished.reason == "interrupted"
        assert policy_of(held).running == 0


async def test_leaving_while_something_runs_asks_first(held):
    async with running(held) as pilot:
        runner = await begun(held, pilot)
        await pilot.press("q")
        assert isinstance(held.screen, Question)
        await pilot.press("n")
        assert not runner.done
        await pilot.press("ctrl+q", "y")
        await until(lambda: runner.done, pilot)
    assert policy_of(held).running == 0
    assert held.return_value == 130


async def test_ctrl_c_stops_the_search_first_and_leaves_then(held):
    async with running(held) as pilot:
        runner = await begun(held, pilot)
        await pilot.press("ctrl+c")
        await until(lambda: runner.done, pilot)
        assert held.is_running
        await pilot.press("ctrl+c")
        await until(lambda: not held.is_running, pilot)


async def test_a_run_goes_on_while_one_looks_elsewhere(held):
    async with running(held) as pilot:
        runner = await begun(held, pilot)
        await pilot.press("escape")
        assert isinstance(held.screen, HomeScreen)
        held.screen.look()
        await pilot.pause()
        assert "● running" in picture(held)
        policy_of(held).hold.set()
        await until(lambda: runner.done, pilot)
        await pilot.pause()
        assert any("Answer: " in said for said in toasts(held)), "it says so where one looks elsewhere"


async def test_again_solves_the_same_problem_with_another_seed():
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        await pilot.press("r")
        await until(lambda: len(app.runners) == 2 and app.runners[1].done, pilot)
        assert app.runners[1].model.tree.start.problem == "What is it?"
        assert app.runners[1].model.tree.plan.seed == PLAN.seed + 1


async def test_a_failed_model_is_told_and_the_app_lives_on():
    own = models()
    own.solver.policy.faults = [BackendError("the server at http://x has gone: start it again")] * 100
    app = make(own=own)
    async with running(app) as pilot:
        runner = await solved(app, pilot)
        assert "the server at http://x has gone" in " ".join(picture(app).split())
        own.solver.policy.faults = []
        await pilot.press("escape")
        second = await solved(app, pilot, "Again?")
        assert second.model.tree.finished.answer is not None
        assert runner.done


async def test_whatever_a_search_raises_becomes_a_sentence():
    own = models()

    def broken(problem):
        raise RuntimeError("[red]boom[/]")

    own.solver.policy.prompt = broken
    app = make(own=own)
    async with running(app) as pilot:
        runner = app.begin("What?")
        await until(lambda: runner.done, pilot)
        tick(app)
        await pilot.pause()
        assert runner.trouble == "unexpected RuntimeError: [red]boom[/]"
        assert "[red]boom[/]" in picture(app)


async def test_ctrl_c_elsewhere_asks_before_it_ends_what_runs(held):
    async with running(held) as pilot:
        runner = await begun(held, pilot)
        await pilot.press("escape")
        assert isinstance(held.screen, HomeScreen)
        await pilot.press("ctrl+c")
        assert isinstance(held.screen, Question) and not runner.done
        await pilot.press("escape", "ctrl+c", "ctrl+c")
        await until(lambda: not held.is_running, pilot)
    assert held.return_value == 130


async def test_when_the_terminal_goes_the_search_ends_with_its_event(held, monkeypatch):
    monkeypatch.setattr(signals, "_received", 0)  # restored afterwards
    monkeypatch.setattr(TTSApp, "_leave_at_last", lambda self: None)  # it would end the tests
    async with running(held) as pilot:
        runner = await begun(held, pilot)
        held.post_message(InputEnded())
        await until(lambda: held.hung_up, pilot)
        held.post_message(InputEnded())
        held._signalled(signal.SIGHUP)  # the kernel tells it in its own way, which is no second interruption
        await until(lambda: not held.is_running, pilot)
    assert runner.model.tree.finished.reason == "interrupted"
    assert held.return_value == 129


async def test_ctrl_c_copies_where_text_is_selected():
    app = make()
    async with running(app) as pilot:
        await pilot.press(*"abc", "shift+home", "ctrl+c")
        await pilot.pause()
        assert app.is_running and app.clipboard == "abc"


async def test_enter_twice_is_one_run():
    app = make()
    async with running(app) as pilot:
        app.screen.query_one("#problem", ProblemInput).text = "What?"
        await pilot.press("enter", "enter")
        await until(lambda: app.runners and app.runners[0].done, pilot)
        assert len(app.runners) == 1


async def test_a_run_that_is_left_while_models_load_says_so_and_the_next_one_runs():
    own = models()
    load, loaded = own.load, asyncio.Event()

    async def late():
        await loaded.wait()
        return await load()

    own.load = late
    app = make(own=own)
    async with running(app) as pilot:
        first = app.begin("What?")
        await until(lambda: isinstance(app.screen, RunScreen) and app.screen.stands, pilot)
        await pilot.press("ctrl+c")
        await until(lambda: first.done, pilot)
        tick(app)
        await pilot.pause()
        assert "stopped before the search began" in picture(app)
        loaded.set()
        await pilot.press("r")
        await until(lambda: len(app.runners) == 2 and app.runners[1].done, pilot)
        assert app.runners[1].model.tree.finished.answer is not None


async def test_a_run_that_is_stopped_at_once_does_not_begin():
    app = make()
    async with running(app) as pilot:
        runner = app.begin("What?")
        runner.stop()
        await until(lambda: runner.done, pilot)
        assert runner.model.tree.started is None and policy_of(app).requests == []


async def test_what_was_written_is_not_lost_where_it_cannot_stand():
    app = make()
    async with running(app) as pilot:
        runner = await paused(app, pilot)
        await pilot.press("i")
        await until(lambda: isinstance(app.screen, Write) and isinstance(app.focused, ProblemInput), pilot)
        runner.search.steering.write = lambda node, text: (_ for _ in ()).throw(UsageError("not there"))
        await pilot.press(*"Mine", "enter")
        await until(lambda: isinstance(app.screen, Write), pilot)
        assert app.screen.query_one(ProblemInput).text == "Mine"
        await pilot.press("escape", "t")
        await until(lambda: runner.done, pilot)


async def test_a_session_that_only_shows_recordings_says_so(tmp_path):
    app = TTSApp(None, None)
    async with running(app) as pilot:
        app.screen.query_one("#problem", ProblemInput).text = "What?"
        await pilot.press("enter")
        await pilot.pause()
        assert any("only shows recordings" in said for said in toasts(app))


# -- looking -----------------------------------------------------------------------------------------------------------


async def test_find_goes_from_place_to_place():
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        screen = app.screen
        await pilot.press("slash", *"thought", "enter")
        first = screen.tree_view.cursor_node
        assert "thought" in app.runners[0].model.tree.nodes[first].text
        await pilot.press("escape", "n")
        assert screen.tree_view.cursor_node != first
        await pilot.press("N")
        assert screen.tree_view.cursor_node == first
        assert any(" of " in said for said in toasts(app))


async def test_what_is_nowhere_is_said_to_be_nowhere():
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        await pilot.press("slash", *"zebra", "enter")
        assert any("stands nowhere" in said for said in toasts(app))


async def test_panels_come_by_number_and_grow_the_second_time():
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        screen = app.screen
        for key, name in (("2", "step"), ("4", "story"), ("1", "tree")):
            await pilot.press(key)
            assert screen.focused is not None and screen.focused.id == name
            await pilot.press(key)
            assert screen.maximized is screen.query_one(f"#{name}")
            await pilot.press(key)
            assert screen.maximized is None
        for name in ("answers", "plan"):
            screen.action_panel(name)
            screen.action_panel(name)
            await pilot.pause()
            assert screen.maximized is screen.query_one(f"#{name}")
            await pilot.press("escape")


async def test_the_view_freezes_and_thaws(held):
    async with running(held) as pilot:
        runner = await begun(held, pilot)
        await pilot.press("z")
        tick(held)
        before = picture(held)
        policy_of(held).hold.set()
        await until(lambda: runner.done, pilot)
        tick(held)
        await pilot.pause()
        tree_rows = [line for line in before.splitlines() if "writing" in line and "├" in line]
        assert tree_rows and all(row in picture(held) for row in tree_rows[:3])
        await pilot.press("z")
        tick(held)
        await pilot.pause()
        assert "answer" in picture(held)


async def test_the_ways_to_look_go_round():
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        view = app.screen.tree_view
        for key, name, count in (("f", "follow", 3), ("h", "heat", 3), ("v", "value", 3)):
            seen = []
            for _ in range(count):
                await pilot.press(key)
                seen.append(getattr(view, name))
            assert len(set(seen)) == count
        await pilot.press("o")
        assert app.runners[0].model.folding.order == "score"


async def test_the_path_is_copied_clean():
    app = make(own=models(lambda path, draw: f"one\x1b[31m{SEPARATOR}" if not path else "\\boxed{1}"))
    async with running(app) as pilot:
        await solved(app, pilot)
        app.screen.tree_view.select(1)
        await pilot.press("y")
        assert app.clipboard.startswith("one[31m")


async def test_pictures_are_kept_as_files(tmp_path):
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        await pilot.press("w", "W")
        await pilot.pause()
        written = list((tmp_path / "home").rglob("*.svg")) + list((tmp_path / "home").rglob("*.html"))
        assert {path.suffix for path in written} == {".svg", ".html"}
        assert all(path.stat().st_size > 1000 for path in written)


async def test_help_explains_the_keys_of_what_has_the_focus():
    app = make()
    async with running(app, (120, 60)) as pilot:
        await solved(app, pilot)
        await pilot.press("question_mark")
        assert isinstance(app.screen, Help)
        shown = " ".join(picture(app).split())
        assert "Find a text or an answer in the tree" in shown and "To the next row" in shown
        assert "Super" not in shown
        await pilot.press("escape")
        assert isinstance(app.screen, RunScreen)


async def test_the_palette_offers_what_the_keys_do():
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert any(title.startswith("fork") for title in titles)
        assert any(title.startswith("export") for title in titles)


# -- a recording -------------------------------------------------------------------------------------------------------


async def recorded(tmp_path):
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
    return recordings(tmp_path)[0]


async def test_a_replay_goes_forward_and_back(tmp_path):
    path = await recorded(tmp_path)
    app = make()
    async with running(app) as pilot:
        app.open_recording(Recording.load(path))
        await pilot.pause()
        player = app.screen.player
        end = len(player)
        assert player.at_end
        await pilot.press("left_square_bracket")
        assert player.position == end - 1
        await pilot.press("left_curly_bracket")
        before = len(player.model.decisions)
        assert 0 < player.position < end - 1
        await pilot.press("right_curly_bracket")
        assert len(player.model.decisions) == before + 1
        await pilot.press("right_square_bracket", "less_than_sign")
        assert player.position < end
        before = player.position
        await pilot.press("greater_than_sign")
        assert player.position > before
        speed = player.speed
        await pilot.press("plus", "plus", "minus")
        assert player.speed > speed
        player.seek(10)
        tick(app, 1)
        await pilot.pause()
        assert f"event 10 of {end}" in picture(app)
        assert fold(player.model.tree) == fold(SearchTree.fold(player.events[:10]))


async def test_a_click_into_the_timeline_goes_there(tmp_path):
    path = await recorded(tmp_path)
    app = make()
    async with running(app, (120, 30)) as pilot:
        app.open_recording(Recording.load(path))
        await pilot.pause()
        tick(app, 3)
        player = app.screen.player
        await pilot.click("#timeline", offset=(118, 0))
        assert player.at_end
        await pilot.click("#timeline", offset=(80, 0))
        await pilot.pause()
        assert 0 < player.position < len(player) - 1


async def test_a_replay_plays_by_itself(tmp_path):
    path = await recorded(tmp_path)
    slow = [replace(event, t=float(second)) for second, event in enumerate(read(path))]
    path.write_bytes(b"".join(encode(event) + b"\n" for event in slow))
    app = make()
    async with running(app) as pilot:
        app.open_recording(Recording.load(path), speed=1.0)
        await pilot.pause()
        player = app.screen.player
        assert player.playing
        await pilot.press("space")
        assert not player.playing
        await pilot.press("space")
        player.speed = 64.0
        before = player.position
        await until(lambda: player.position > before, pilot)
        player.advance(1e6)
        assert player.at_end


async def test_a_run_is_begun_from_a_recording(tmp_path):
    path = await recorded(tmp_path)
    app = make()
    async with running(app) as pilot:
        app.open_recording(Recording.load(path))
        await pilot.pause()
        await pilot.press("b", "ctrl+s")
        await until(lambda: app.runners and app.runners[0].done, pilot)
        assert app.runners[0].trouble == ""


async def test_an_interrupted_run_is_resumed(tmp_path):
    path = await recorded(tmp_path)
    whole = load(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))
    app = make()
    async with running(app) as pilot:
        app.open_recording(Recording.load(path))
        await pilot.pause()
        await pilot.press("r")
        (runner,) = app.runners
        await until(lambda: runner.done, pilot)
        assert runner.trouble == ""
        assert runner.model.tree.finished.answer == whole.finished.answer
        assert fold(load(path)) == fold(runner.model.tree)


@pytest.mark.parametrize("content", [b"", b"no recording\n", b'{"event":"search_paused"}\n', b"\xff\xfe\n"])
async def test_a_file_that_is_no_recording_is_told(tmp_path, content):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    app = make()
    async with running(app) as pilot:
        for then in (app.open_recording, app.resume_recording):
            app.read(path, then)
            await app.workers.wait_for_complete()
        await pilot.pause()
        assert isinstance(app.screen, HomeScreen)
        assert len(toasts(app)) == 2


# -- compare -----------------------------------------------------------------------------------------------------------


async def test_two_runs_stand_side_by_side():
    app = make()
    async with running(app, (140, 40)) as pilot:
        first = await solved(app, pilot)
        await pilot.press("escape")
        app.plan = Plan(strategy="majority", n=4, vote="majority")
        await solved(app, pilot)
        await pilot.press("c")
        assert isinstance(app.screen, ChoiceDialog)
        await pilot.press("enter")
        assert isinstance(app.screen, CompareScreen)
        await pilot.pause()
        app.screen.tick()
        await pilot.pause()
        shown = picture(app)
        assert "tokens computed" in shown and "×" in shown
        assert f"{len(first.model.tree):,}" in shown
        left = app.screen.tree_view
        await pilot.press("tab")
        assert app.screen.tree_view is not left
        await pilot.press("down", "slash", *"thought", "enter", "escape", "escape")
        assert isinstance(app.screen, RunScreen)


async def test_with_one_run_there_is_nothing_to_compare():
    app = make(record=False)
    async with running(app) as pilot:
        await solved(app, pilot)
        await pilot.press("c")
        assert any("no other run" in said for said in toasts(app))


# -- keys and sizes ----------------------------------------------------------------------------------------------------


def test_every_key_has_a_name_of_its_own_and_says_what_it_does():
    known = keys.known()
    assert len(known) > 50
    for id, (key, said) in known.items():
        assert "." in id and key and said


async def test_keys_can_be_changed():
    app = make(keymap={"run.pause": "f7"})
    async with running(app) as pilot:
        runner = await paused(app, pilot, "f7")
        await pilot.press("f7")
        await until(lambda: runner.done, pilot)


@pytest.mark.parametrize("size", [(20, 5), (10, 3), (1, 1), (40, 10), (79, 23), (80, 24), (119, 30), (200, 60)])
async def test_every_screen_lives_at_every_size(size):
    app = make()
    async with running(app, size) as pilot:
        await pilot.pause()
        runner = await solved(app, pilot)
        for key in ("down", "enter", "2", "5", "question_mark", "escape", "1", "escape"):
            await pilot.press(key)
            if hasattr(app.screen, "tick"):
                tick(app)
        await pilot.resize_terminal(100, 30)
        await pilot.resize_terminal(*size)
        assert runner.model.tree.finished is not None
        assert app._exception is None


async def test_what_a_model_writes_is_text(monkeypatch):
    evil = "a\x1b[31mred\x1b]0;title\x07 [bold]m[/bold] [/] \x9b5m\u202eright\u200b\u2066 left\r\x00 :smile:"
    own = models(lambda path, draw: f"{evil} {draw % 5}" + (SEPARATOR if len(path) < 2 else " \\boxed{[/]}"))
    app = make(own=own)
    async with running(app) as pilot:
        await solved(app, pilot, f"{evil.replace(chr(0), '')} what?")
        for key in ("down", "down", "2", "4", "5", "W"):
            await pilot.press(key)
            tick(app)
        shown = picture(app)
        assert "[bold]m[/bold] [/]" in shown
        assert all(character.isprintable() or character == "\n" for character in shown)


async def test_what_is_pasted_steers_no_terminal():
    evil = "a\x1b]0;title\x07\x9b5m\u202e\u200b b\r\nc"
    app = make()
    async with running(app) as pilot:
        app.post_message(Paste(evil))
        await pilot.pause()
        assert app.screen.query_one("#problem", ProblemInput).text == "a]0;title5m b\nc"
        shown = picture(app)
        await solved(app, pilot)
        await pilot.press("slash")
        app.post_message(Paste(evil))
        await pilot.pause()
        assert app.screen.query_one("#find", Input).value == "a]0;title5m b"
        shown += picture(app)
        await pilot.press("escape", "p")
        app.post_message(Paste(evil))
        await pilot.pause()
        shown += picture(app)
    assert all(character.isprintable() or character == "\n" for character in shown)


async def test_no_text_of_a_run_is_ever_read_as_markup(monkeypatch):
    """Not on the first screen, in a run, in dialogs, toasts and frames, or beside another run."""
    evil = "[@click=app.quit]evil[/] [link=http://example.org]evil[/link] [evil [/] \\[evil] [$evil] \\"
    read_as_markup = []
    plain = Content.from_markup.__func__

    def spy(cls, markup, **variables):
        if "evil" in str(markup) and not isinstance(markup, Content):
            read_as_markup.append(markup)
        return plain(cls, markup, **variables)

    monkeypatch.setattr(Content, "from_markup", classmethod(spy))
    script = lambda path, draw: f"{evil} {draw % 5}" + (SEPARATOR if len(path) < 2 else f" \\boxed{{{evil}}}")  # noqa: E731
    app = make(PLAN.replace(why=evil), own=models(script))
    shown = ""
    async with running(app, (140, 40)) as pilot:
        await solved(app, pilot, evil)
        await solved(app, pilot, f"{evil} again")
        app.screen.say(evil)
        for key in ("down", "down", "2", "4", "5", "p", "escape", "question_mark", "escape", "c", "enter", "escape"):
            await pilot.press(key)
            await pilot.pause()
            if hasattr(app.screen, "tick"):
                tick(app)
            shown += picture(app)
        app.push_screen(CompareScreen(*(runner.model for runner in app.runners), names=(evil, f"{evil} 2")))
        await pilot.pause()
        await pilot.press("question_mark")
        await pilot.pause()
        await pilot.press("escape")
        await pilot.pause()
        shown += picture(app)
        await pilot.press("escape", "escape", "escape")
        app.notify(one_line(evil), markup=False)
        await pilot.pause()
        shown += picture(app)
    assert read_as_markup == []
    assert evil in shown and evil.split("] ")[-1] in shown


async def test_a_step_of_a_hundred_thousand_characters_keeps_the_layout():
    app = make(own=models(lambda path, draw: "x" * 100_000 + SEPARATOR if not path else "\\boxed{1}", piece=50_000))
    async with running(app) as pilot:
        runner = app.begin("long?")
        await until(lambda: runner.done, pilot)
        app.screen.tree_view.select(1)
        tick(app)
        await pilot.pause()
        step = app.screen.query_one("#step")
        step.scroll_end(animate=False)
        await pilot.pause()
        assert "80,002 more characters" in picture(app)
        assert step.size.width + app.screen.query_one("#left").size.width <= 120


async def test_drawing_costs_nothing_where_nothing_changes():
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        tick(app, 6)
        await pilot.pause()
        drawn = []
        view = app.screen.tree_view
        pull = view.pull
        view.pull = lambda count: drawn.append(pull(count))
        tick(app, 12)
        assert drawn == [0] * 12


# -- bursts of keys ----------------------------------------------------------------------------------------------------


async def test_a_window_that_is_closed_twice_leaves_the_screen_below_open():
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        shown = app.screen
        app.action_command_palette()
        await pilot.pause()
        palette = app.screen
        palette.dismiss()
        palette.dismiss()
        await pilot.pause()
        assert app.screen is shown
        app.push_screen(Help(shown))
        await pilot.pause()
        window = app.screen
        window.dismiss()
        window.dismiss()
        await pilot.pause()
        assert app.screen is shown


async def test_a_command_that_comes_after_its_screen_was_closed_does_nothing():
    app = make()
    async with running(app) as pilot:
        await solved(app, pilot)
        closed = app.screen
        await app.pop_screen()
        await app.run_action("panel('answers')", default_namespace=closed)
        await pilot.pause()
        assert app.is_running and app._exception is None
