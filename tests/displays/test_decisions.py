"""What people see of `auto`: sentences, lines of the live display, the plan panel, the form, and pictures."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.displays.test_displays import EVIL, finished_step, run, shown, start
from tests.displays.test_export import Page
from tests.ui.staging import PLAN, make, picture, running, solved, tick, until
from tts_tui import SearchTree
from tts_tui.controller import controller
from tts_tui.displays import decisions, export, phrases
from tts_tui.displays.frame import Moment, frame
from tts_tui.displays.json_lines import JsonDisplay
from tts_tui.displays.plain import PlainDisplay
from tts_tui.displays.status_lines import short_plan
from tts_tui.formatting import wrap
from tts_tui.plan import Plan
from tts_tui.tree.events import BranchBegun, Considered, PlanChanged, PlanChosen, SolutionFound
from tts_tui.ui import panels
from tts_tui.ui.player import Player
from tts_tui.ui.run_model import RunModel
from tts_tui.ui.screens import help
from tts_tui.ui.screens.compare import CompareScreen
from tts_tui.ui.screens.plan import PlanForm
from tts_tui.ui.screens.run import RunScreen
from tts_tui.ui.widgets.tree_view import TreeView

BASIS = "priors from the paper, as nothing was calibrated for these models"
FIRST = PlanChosen(
    t=0.1,
    samples=0,
    pass1=0.33,
    low=0.0003,
    high=0.9554,
    levels=(0.3, 0.3, 0.4),
    answer=None,
    confidence=0.0,
    changes=0.0,
    considered=(Considered("beam:16", 0.61, 0.0), Considered("best-of-n:16", 0.541, 0.0)),
    chosen="beam:16",
    strategy="best-of-n",
    n=4,
    basis=BASIS,
    why="beam:16 looks best, and its first 4 samples will tell more",
)
SECOND = replace(
    FIRST,
    t=5.0,
    samples=4,
    pass1=0.11,
    high=0.48,
    levels=(0.04, 0.28, 0.68),
    answer="8",
    confidence=0.1,
    considered=(
        Considered("beam:16", 0.46, 1095.8),
        Considered("dvts:16", 0.41, 1095.8),
        Considered("best-of-n:12", 0.352, 547.9),
        Considered("beam:8", 0.351, 547.9),
        Considered("best-of-n:8", 0.28, 274.0),
        Considered("stop", 0.1, 0.0),
    ),
    strategy="beam",
    n=16,
    why="10 % sure of 8 after 4 samples: beam:16 is expected to be right in 46 %",
)
LAST = replace(
    SECOND,
    t=9.0,
    samples=7,
    pass1=0.1,
    answer="11",
    confidence=0.998,
    considered=(Considered("stop", 0.998, 0.0), Considered("dvts:4", 0.97, 203.0)),
    chosen="stop",
    strategy="",
    n=0,
    why="sure of 11 after 7 samples.",
)


def begun(**plan):
    return start(strategy="auto", n=16, **plan)


def model_of(*events):
    model = RunModel()
    for event in events:
        model.apply(event)
    model.pull()
    return model


def said(lines):
    return "\n".join(line.plain for line in lines)


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_a_choice_is_told_with_its_reason_and_what_is_expected():
    told = [one.sentence for one in model_of(begun(), FIRST, SECOND, LAST).decisions]
    assert told[1:] == [
        f"Chosen beam:16, first best-of-n:4: {FIRST.why}. Expected pass@1 33 % (90 % range: <1 % to 96 %); "
        f"easy 30 %, medium 30 %, hard 40 %. Basis: {BASIS}.",
        f"Chosen beam:16: {SECOND.why}. Expected pass@1 11 % (90 % range: <1 % to 48 %); "
        "easy 4 %, medium 28 %, hard 68 %.",
        f"Stop: {LAST.why} Expected pass@1 10 % (90 % range: <1 % to 48 %); easy 4 %, medium 28 %, hard 68 %.",
    ]


def test_the_basis_is_told_again_where_it_changes_and_after_a_new_plan():
    other = replace(SECOND, basis="calibrated on 300 problems with 16 samples each")
    told = [one.sentence for one in model_of(begun(), FIRST, other, replace(other, t=6.0)).decisions]
    assert ["Basis: " in sentence for sentence in told] == [False, True, True, False]
    changed = model_of(begun(), FIRST, PlanChanged(plan=Plan(strategy="auto", n=8)), SECOND)
    assert "Basis: " in changed.decisions[-1].sentence


def test_a_choice_of_a_branch_says_where_it_goes_on_from():
    model = model_of(begun(), *finished_step(1, 0, "a"), BranchBegun(node=1), replace(SECOND, root=1))
    assert model.decisions[-1].sentence.startswith("From step 0.0, chosen beam:16: ")
    assert "from      step 0.0" in said(panels.choice(model, 46, 20))


def test_the_plain_display_also_tells_what_was_considered():
    out = shown(PlainDisplay, [begun(), FIRST, SECOND])
    assert "0.1 s: Chosen beam:16, first best-of-n:4: " in out
    assert "Considered: beam:16 (61 % right at a cost not known yet), best-of-n:16 (54 % right" in out
    assert "5.0 s: Considered: beam:16 (46 % right for 1.10k tokens more), dvts:16 " in out
    assert "best-of-n:8 (28 % right for 274 tokens more), stop (10 % right).\n" in out
    assert out.isascii()


def test_of_many_plans_the_rest_is_counted():
    many = replace(SECOND, considered=tuple(Considered(f"dvts:{n}", 0.5, 9.0) for n in range(1, 21)))
    assert phrases.considered(many).endswith("dvts:12 (50 % right for 9 tokens more), and 8 other plans")


def test_the_json_display_has_the_whole_choice():
    line = json.loads(shown(JsonDisplay, [begun(), SECOND]).splitlines()[1])
    assert line["event"] == "plan_chosen" and line["chosen"] == "beam:16"
    assert line["considered"][-1] == {"plan": "stop", "accuracy": 0.1, "tokens": 0.0}


async def test_a_real_choice_says_how_sure_the_answer_is():
    _, events = await run(strategy="auto", n=16, m=4)
    model = model_of(*events)
    chosen = model.tree.choices
    assert len(chosen) > 1 and chosen[0].samples == 0 and chosen[-1].chosen == phrases.STOP == controller.STOP
    for choice in chosen[1:]:
        assert choice.answer is not None and f"sure of {choice.answer}" in choice.why
    assert sum("Expected pass@1 " in told.sentence for told in model.decisions) == len(chosen)
    assert all(len(told.sentence) <= 500 for told in model.decisions)  # as much as the story shows


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.001, "<1 %"), (0.012, "1 %"), (0.5, "50 %"), (0.997, ">99 %"), (1.0, "100 %")]
)
def test_a_share_is_never_rounded_to_certainty(share, text):
    assert phrases.share(share) == text


def test_the_plan_of_auto_is_told_with_its_wish():
    assert short_plan(Plan(strategy="auto", n=64)) == "auto N up to 64 M 4"
    assert phrases.plan(Plan(strategy="auto", n=64, target_tokens=500)).startswith("auto, n up to 64, m 4, ")
    assert "about 500 tokens on average" in phrases.plan(Plan(strategy="auto", target_tokens=500))
    assert (
        dict(panels.plan_lines(Plan(strategy="auto", target_accuracy=0.8)))["wish"] == "80 % right as cheaply as it can"
    )
    assert "wish" not in dict(panels.plan_lines(Plan(strategy="auto")))


def test_a_number_stays_with_its_percent_sign():
    assert wrap("right in 46 % of all", 11) == ["right in", "46 % of all"]


# -- the panel ---------------------------------------------------------------------------------------------------------


def test_the_interval_shows_mean_and_range():
    assert decisions.interval(replace(FIRST, pass1=0.5, low=0.25, high=0.75), 9) == "──━━●━━──"
    assert decisions.interval(replace(FIRST, pass1=0.0, low=0.0, high=0.0), 5, blocks=False) == "o----"
    assert decisions.interval(replace(FIRST, pass1=1.0, low=0.5, high=1.0), 5, blocks=False) == "--==o"


def test_the_panel_shows_expectation_plans_and_reason():
    text = said(panels.choice(model_of(begun(), FIRST, SECOND), 46, 30))
    assert "pass@1    ━━●━━━━━──────── 11 % (<1 % to 48 %)" in text
    assert "level     easy 4 %, medium 28 %, hard 68 %" in text
    assert "answer    8, 10 % sure after 4 solutions" in text
    assert "▶ beam:16        46 %  +1.10k" in text and "  stop           10 %       0" in text
    assert " ".join(SECOND.why.split()) in " ".join(text.split())
    assert "basis     priors from the paper" in text
    assert "strategy  auto N up to 16 M 4" in text


def test_the_likeliest_level_stands_out():
    line = panels.choice(model_of(begun(), SECOND), 46, 30)[1]
    bold = [line.plain[span.start : span.end] for span in line.spans if "bold" in str(span.style).split("not bold")[0]]
    assert bold == ["hard 68 %"]
    assert panels.choice(model_of(begun(), SECOND), 30, 30)[1].plain.strip() == "level     hard 68 %"


def test_without_a_sample_there_is_no_answer_and_a_cost_may_be_unknown():
    text = said(panels.choice(model_of(begun(), FIRST), 46, 30))
    assert "none yet: no sample was seen" in text
    assert "▶ beam:16        61 %       ?" in text
    assert "chosen    beam:16, first best-of-n:4" in text
    text = said(panels.choice(model_of(begun(), replace(SECOND, answer=None)), 46, 30))
    assert "answer    none in 4 solutions" in text


def test_before_the_first_choice_the_panel_says_what_is_coming():
    model = model_of(begun())
    assert decisions.is_auto(model.tree)
    text = said(panels.choice(model, 46, 10))
    assert "nothing is chosen yet" in text and "strategy  auto N up to 16 M 4" in text


def test_where_there_is_little_room_the_chosen_plan_and_stop_stay():
    model = model_of(begun(), FIRST, replace(SECOND, chosen="beam:8", strategy="beam", n=8))
    text = said(panels.choice(model, 46, 12))
    assert "▶ beam:8" in text and "  stop" in text and "and 3 other plans" in text
    assert "basis " in text
    wide = said(panels.choice(model, 76, 7)).splitlines()
    assert len(wide) == 7 and wide[0].startswith("pass@1") and wide[0].endswith("tokens")


@given(st.integers(1, 200), st.integers(1, 40), st.sampled_from([None, FIRST, SECOND, LAST, "evil"]))
def test_the_panel_never_needs_more_than_it_has(width, rows, choice):
    evil = replace(
        SECOND,
        answer=EVIL,
        why=EVIL * 9,
        basis=EVIL,
        chosen=EVIL,
        strategy=EVIL,
        considered=(Considered(EVIL, 2.0, 1e12),),
    )
    events = [begun()] if choice is None else [begun(), evil if choice == "evil" else choice]
    model = model_of(*events)
    pictures = [
        panels.choice(model, width, rows),
        decisions.lines(model.tree, width, rows),
        frame(model.tree, (), width, rows, Moment()),
    ]
    for lines in pictures:
        assert len(lines) <= rows and all(line.cell_len <= width for line in lines)
        assert all(character.isprintable() for line in lines for character in line.plain)


def test_other_strategies_have_no_such_lines():
    tree = model_of(start(strategy="beam")).tree
    assert not decisions.is_auto(tree) and decisions.lines(tree, 80, 4) == []
    changed = model_of(begun(), FIRST, PlanChanged(plan=Plan(strategy="beam", n=8))).tree
    assert not decisions.is_auto(changed)
    assert not decisions.is_auto(SearchTree())


# -- the live display, pictures ----------------------------------------------------------------------------------------


def test_the_live_display_says_what_is_expected_and_why():
    model = model_of(begun(), *finished_step(1, 0, "a"), FIRST, SECOND)
    wide = said(frame(model.tree, (), 150, 40, Moment()))
    assert "auto    pass@1 ─" not in wide and "auto    pass@1 ━●━━━━" in wide
    assert "11 % (90 % range: <1 % to 48 %) │ easy 4 %, medium 28 %, hard 68 % │ 10 % sure of 8 │ beam:16" in wide
    assert f"why     {SECOND.why}." in wide
    assert "plans   ▶ beam:16 46 % +1.10k (right, tokens) │ dvts:16 41 % +1.10k" in wide
    assert f"basis   {BASIS}" in wide
    small = said(frame(model.tree, (), 80, 12, Moment()))
    assert "11 % │ hard 68 % │ 10 % sure of 8 │ beam:16" in small and "why" not in small
    assert "auto    nothing chosen yet" in said(frame(model_of(begun()).tree, (), 80, 24, Moment()))


def test_a_terminal_without_unicode_sees_the_same_choice():
    text = said(frame(model_of(begun(), FIRST, SECOND).tree, (), 150, 40, Moment(unicode=False)))
    assert text.isascii()
    assert "pass@1 =o====------ 11 %" in text and "> beam:16 46 % +1.10k" in text


def test_a_page_tells_the_last_choice():
    tree = model_of(begun(), FIRST, SECOND).tree
    page = Page(export.html(tree))
    for text in ("Difficulty", "hard 68 %", "Last choice", SECOND.why, "Considered", "beam:16 (46 % right", BASIS):
        assert text in page.text
    assert "hard 68 %" in export.svg(tree, width=150).replace("&#160;", " ")
    assert "Last choice" not in Page(export.html(model_of(begun()).tree)).text


def test_beside_another_run_all_choices_stand_in_a_row():
    tree = model_of(begun(), FIRST, replace(FIRST, t=0.2), SECOND, LAST).tree
    first, *more = decisions.course(tree, 60, 4)
    assert first.plain == f"{'auto':<10}best-of-n:4 → beam:16 → stop"
    assert more[0].plain == f"{'why':<10}{LAST.why}"
    assert "hard 68 %" in more[1].plain and more[2].plain.startswith("basis     priors from the paper")
    assert decisions.course(tree, 34, 1)[0].plain == f"{'auto':<10}… → beam:16 → stop"
    assert said(decisions.course(tree, 34, 2)) == "auto      best-of-n:4 → beam:16 →\n          stop"
    assert decisions.course(tree, 60, 0) == []
    assert said(decisions.course(model_of(begun()).tree, 60, 4)).endswith("nothing chosen yet")
    assert decisions.course(model_of(start(strategy="beam", n=4)).tree, 60, 4) == []


# -- the screens -------------------------------------------------------------------------------------------------------


def film(*events):
    player = Player(events)
    player.playing = False
    player.seek(len(events))
    return player


async def seen(app, pilot, *texts):
    """Looks until all of `texts` are on the screen."""

    def there():
        tick(app, 4)
        return all(text in picture(app) for text in texts)

    await until(there, pilot)


@pytest.mark.parametrize("size", [(130, 34), (100, 28), (80, 24), (60, 20), (44, 11)])
async def test_the_plan_panel_fits_every_screen(size):
    app = make()
    solution = [*finished_step(1, 0, "so 8", 0.3), SolutionFound(node=1, answer="8")]
    async with running(app, size) as pilot:
        await app.push_screen(RunScreen(player=film(begun(), FIRST, *solution, SECOND)))
        await pilot.press("5")
        await seen(app, pilot, "11 % (", "<1 % to 48 %)", "hard 68 %", "8, 10 % sure", "▶ beam:16")
        if size[1] > 11:
            await seen(app, pilot, "Plan · priors from the paper", "basis     priors from the paper", "  stop ")
        await pilot.press("5")
        await seen(app, pilot, "▶ beam:16", "basis     priors from the paper", "  stop ")
        if size[1] > 11:
            await seen(app, pilot, "strategy  auto N up to 16 M 4")


async def test_on_a_small_screen_the_frame_names_hidden_panels_and_tab_shows_them_in_turn():
    app = make(keymap={"view.panel-plan": "f7"})
    async with running(app, (80, 24)) as pilot:
        await app.push_screen(RunScreen(player=film(begun(), FIRST, SECOND)))
        await seen(app, pilot, "Step │ 4 Decisions │ f7 Plan", f" auto    beam:16: {phrases.why(SECOND)[:50]}")
        assert "pass@1" not in picture(app)
        await pilot.press("tab", "tab")
        await seen(app, pilot, "Decisions │ 2 Step │ f7 Plan")
        await pilot.press("tab")
        await seen(app, pilot, "Plan · priors from the paper │ 2 Step │ 4 Decisions", "pass@1", "▶ beam:16")
        assert " auto    beam:16" not in picture(app)
        assert app.screen.focused is app.screen.tree_view  # so that one may walk through the tree beside the plan
        await pilot.press("shift+tab")
        await seen(app, pilot, "Decisions │ 2 Step │ f7 Plan")
        await pilot.press("tab", "tab")
        await seen(app, pilot, "Step │ 4 Decisions │ f7 Plan")
        assert any("Go to the next panel" in line.plain for line in help.lines(app.screen))


async def test_where_one_panel_fills_the_screen_its_frame_names_the_tree_too():
    app = make()
    async with running(app, (60, 34)) as pilot:
        await app.push_screen(RunScreen(player=film(begun(), FIRST, SECOND)))
        await seen(app, pilot, "│ 2 Step │ 4 Decisions │ 5 Plan", " auto    beam:16: ")
        await pilot.press("shift+tab")
        await seen(app, pilot, "Plan · priors from the paper │ 1 Tree │ 2 Step", "▶ beam:16")
        await pilot.press("tab")
        await seen(app, pilot, "│ 2 Step │ 4 Decisions │ 5 Plan")
        titles = [line.plain for line in help.lines(app.screen)]
        assert "Tree" in titles and not any("│" in title for title in titles)


async def test_where_all_panels_have_room_tab_moves_the_focus_and_no_frame_names_others():
    app = make()
    async with running(app, (130, 34)) as pilot:
        await app.push_screen(RunScreen(player=film(begun(), FIRST, SECOND)))
        await seen(app, pilot, "▶ beam:16")
        assert "│ 2 Step" not in picture(app) and " auto    beam:16" not in picture(app)
        reached = []
        for key in ("tab", "tab", "tab", "shift+tab"):
            await pilot.press(key)
            reached.append(app.screen.focused.id)
        assert reached == ["step", "story", "tree", "story"]


@pytest.mark.parametrize("size", [(150, 40), (100, 28), (80, 24), (60, 34), (60, 24), (44, 20)])
async def test_a_comparison_says_what_auto_chose(size):
    app = make()
    one, other = film(begun(), FIRST, SECOND, LAST), film(begun(), FIRST, SECOND)
    async with running(app, size) as pilot:
        await app.push_screen(CompareScreen(one.model, other.model))
        await seen(app, pilot, "beam:16 → stop", "best-of-n:4 → beam:16")
        if size[1] >= 28:
            await seen(app, pilot, "why       sure of 11", "why       10 % sure of 8 after")
        assert all(tree.size.height > 0 for tree in app.screen.query(TreeView))


async def test_a_comparison_of_auto_with_another_plan_says_it_of_one_side():
    app = make()
    async with running(app, (120, 36)) as pilot:
        await app.push_screen(CompareScreen(film(begun(), FIRST).model, film(start(strategy="beam", n=4)).model))
        await seen(app, pilot, "auto      best-of-n:4", "pass@1    33 %")
        assert app.screen.query_one("#right-choices").display is False


async def test_the_panel_goes_back_with_a_replay():
    app = make()
    async with running(app, (130, 40)) as pilot:
        screen = RunScreen(player=film(begun(), FIRST, SECOND, LAST))
        await app.push_screen(screen)
        for expected in (">99 % sure", "10 % sure after", "no sample was seen", "nothing is chosen yet"):
            await seen(app, pilot, expected)
            screen.player.step(-1)


async def test_a_real_run_of_auto_fills_the_panel():
    app = make(Plan(strategy="auto", n=8, m=4), record=False)
    async with running(app, (140, 44)) as pilot:
        runner = await solved(app, pilot)
        assert runner.trouble == "" and runner.model.tree.choices[-1].chosen == "stop"
        await seen(app, pilot, "▶ stop", "pass@1", "Stop: ")


# -- the form ----------------------------------------------------------------------------------------------------------


async def test_the_form_offers_auto_with_its_wishes():
    app = make()
    async with running(app) as pilot:
        await pilot.press("ctrl+o")
        form = app.screen
        assert isinstance(form, PlanForm)
        assert not form.query_one("#target_tokens").parent.display
        form.query_one("#strategy").value = "auto"
        await pilot.pause()
        await pilot.pause()
        assert form.query_one("#target_tokens").parent.display
        assert "N, most candidates" in picture(app)
        assert form.query_one("#n").value == "64"
        form.query_one("#target_accuracy").value = "80 %"
        form.query_one("#target_tokens").value = "500"
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert app.screen is form and "not both" in picture(app)
        form.query_one("#target_tokens").value = ""
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert (app.plan.strategy, app.plan.target_accuracy, app.plan.target_tokens) == ("auto", 0.8, None)
        app.screen.look()
        await pilot.pause()
        assert "80 % right as cheaply as it can" in picture(app)


async def test_another_strategy_forgets_the_wishes():
    app = make(PLAN.replace(strategy="auto", target_tokens=500))
    async with running(app) as pilot:
        await pilot.press("ctrl+o")
        form = app.screen
        assert form.query_one("#target_tokens").value == "500"
        form.query_one("#strategy").value = "best-of-n"
        await pilot.pause()
        form.query_one("#target_tokens").value = "700"  # hidden
        await pilot.press("ctrl+s")
        assert (app.plan.strategy, app.plan.target_tokens) == ("best-of-n", None)


@pytest.mark.parametrize("text", ["much", "0", "120 %"])
async def test_a_wish_that_cannot_be_is_refused_in_the_form(text):
    app = make(PLAN.replace(strategy="auto"))
    async with running(app) as pilot:
        await pilot.press("ctrl+o")
        app.screen.query_one("#target_accuracy").value = text
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert isinstance(app.screen, PlanForm) and "! " in picture(app)


@pytest.mark.parametrize(
    ("basis", "short"),
    [
        (BASIS, "priors from the paper"),
        ("calibrated on 339 problems with 16 samples each", "calibrated on 339 problems"),
    ],
)
def test_the_title_of_the_panel_has_the_basis_in_short(basis, short):
    assert phrases.basis_in_short(replace(FIRST, basis=basis)) == short
