"""`tts-tui report`: figures of made-up runs, worked out by hand, in every form; and what is said of odd runs."""

from __future__ import annotations

import csv
import io
import json

import msgspec
import pytest
from msgspec.structs import replace

from tests.evaluation.made_runs import MAJORITY, SCORED, item, outcome, write
from tts_tui.cli import main
from tts_tui.cli.report import FORMATS
from tts_tui.evaluation.loaded_run import load
from tts_tui.evaluation.reports.plots import family, lines
from tts_tui.evaluation.reports.report import make
from tts_tui.evaluation.reports.tables import Table, as_markdown, drawn, report_text
from tts_tui.evaluation.run_folder import read_header
from tts_tui.formatting import is_hidden
from tts_tui.plan import default_plan
from tts_tui.tree.totals import Flops, PolicyTokens, PrmTokens, Tokens

EASY = [("1", (0.9,)), ("1", (0.8,)), ("1", (0.7,)), ("9", (0.1,))]
"""Of the problem 0 + 1: three of four are right."""
MEDIUM = [("9", (0.2, 0.9)), ("9", (0.3, 0.4)), ("2", (0.9, 0.8)), ("8", (0.9, 0.1))]
"""Of 1 + 1: one of four is right; it has the highest lowest score, but neither the most votes nor the last one."""
HARD = [("9", (0.5,)), (None, ()), ("9", (0.4,)), ("7", (0.6,))]
"""Of 2 + 1: none is right."""
ITEMS = [item(0, family="add0", level="1"), item(1, family="lin", level="1"), item(2, family="lin", level="2")]


def outcomes(plan="best-of-n:4", settings=SCORED, items=ITEMS):
    return [
        outcome(problem, plan, solutions, settings)
        for problem, solutions in zip(items, (EASY, MEDIUM, HARD), strict=True)
    ]


@pytest.fixture
def run(tmp_path):
    cot = [outcome(one, "cot", [(answer, ())]) for one, answer in zip(ITEMS, ("1", "0", "3"), strict=True)]
    plans = {"cot": default_plan("cot"), "best-of-n:4": SCORED}
    return write(tmp_path / "first", plans, ITEMS, [*outcomes(), *cot])


def figures(*folders):
    report = make(load(folders))
    return report, {(one.run, one.plan, one.group, one.measure): one for one in report.figures}


def values(folder, plan="best-of-n:4"):
    _, known = figures(folder)
    return {key[2:]: one.value for key, one in known.items() if key[1] == plan}


# -- figures -----------------------------------------------------------------------------------------------------------


def test_accuracies_have_wilson_intervals(run):
    _, known = figures(run)
    found = known["first", "best-of-n:4", "all", "accuracy"]
    assert (found.value, found.n) == (pytest.approx(1 / 3), 3)
    assert (found.low, found.high) == (pytest.approx(0.0615, abs=1e-4), pytest.approx(0.7923, abs=1e-4))
    assert known["first", "cot", "all", "accuracy"].value == pytest.approx(2 / 3)


def test_problems_are_binned_by_the_share_of_right_samples(run):
    report, known = figures(run)
    bins = {key[2]: (one.value, one.n) for key, one in known.items() if key[1] == "cot" and "difficulty" in key[2]}
    assert bins == {"difficulty easy": (1.0, 1), "difficulty medium": (0.0, 1), "difficulty hard": (1.0, 1)}
    (note,) = [note for note in report.notes if note.startswith("Difficulty")]
    assert "from 4 samples a problem by best-of-n:4" in note


def test_groups_of_the_data_are_reported_where_they_are(run):
    found = values(run, "cot")
    assert found["family add0", "accuracy"] == 1.0
    assert found["family lin", "accuracy"] == 0.5
    assert found["level 1", "accuracy"] == 0.5
    assert not any(group.startswith("subject") for group, _ in found)


def test_pass_at_k_is_unbiased(run):
    found = values(run)
    assert found["all", "pass@1"] == pytest.approx((3 / 4 + 1 / 4 + 0) / 3)
    assert found["all", "pass@2"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found["all", "pass@4"] == pytest.approx(2 / 3)
    assert ("all", "pass@1") not in values(run, "cot")


def test_costs_are_those_of_policy_and_prm_apart_and_together(run):
    found = values(run)
    assert found["all", "policy prompt computed"] == 10
    assert found["all", "policy prompt cached"] == 30
    assert found["all", "policy sampled"] == 32
    assert found["all", "prm computed"] == 24
    assert found["all", "tokens"] == 66
    assert found["all", "flops"] == found["all", "policy flops"] + found["all", "prm flops"] == 4200 + 1200


def test_every_score_and_vote_is_counted_over_the_same_solutions(run):
    found = values(run)
    ways = {name: value for (group, name), value in found.items() if group == "all" and name.startswith("accuracy ")}
    assert len(ways) == 9
    assert ways["accuracy majority"] == pytest.approx(1 / 3)
    assert ways["accuracy last prm-max"] == pytest.approx(1 / 3)
    assert ways["accuracy min prm-max"] == pytest.approx(2 / 3)
    assert {name for group, name in values(run, "cot") if name.startswith("accuracy ")} == {"accuracy majority"}


def test_fewer_samples_are_averages_over_subsets_and_cost_their_part(run):
    found = values(run)
    for way in ("majority", "min prm-max", "last prm-vote"):
        assert found["n=1", f"accuracy {way}"] == pytest.approx(1 / 3)
        assert found["n=4", f"accuracy {way}"] == found["all", f"accuracy {way}"]
    # Of all six pairs: for 0 + 1 every one has a right solution on top; for 1 + 1 half of them has the right one.
    assert found["n=2", "accuracy min prm-max"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["n=2", "policy tokens"] == 10 + 16
    assert found["n=2", "tokens"] == 10 + 16 + 12
    assert found["n=2", "flops"] == pytest.approx(2600 + 600)
    assert found["n=4", "tokens"] == found["all", "tokens"]


# -- comparisons -------------------------------------------------------------------------------------------------------


def test_every_two_plans_are_tested_on_the_same_problems(run):
    report, _ = figures(run)
    (test,) = report.tests
    assert (test.first, test.second) == ("cot", "best-of-n:4")
    assert (test.paired.only_first, test.paired.only_second, test.paired.p) == (1, 0, 1.0)
    assert test.holm == 1.0


def test_runs_are_compared_on_what_all_of_them_have(tmp_path, run):
    items = [*ITEMS[:2], item(7), item(8)]
    done = [outcome(one, "majority:4", EASY, MAJORITY) for one in items]
    other = write(tmp_path / "other", {"majority:4": MAJORITY}, items, done, prm="another PRM")
    report, known = figures(run, other)
    assert {one.n for one in known.values()} <= {1, 2}
    said = "\n".join(report.notes)
    assert "2 problems are shared by all runs; all figures are of these." in said
    assert "Only first has 1 problem: p2." in said
    assert "Only other has 2 problems: p7, p8." in said
    assert "The runs differ in their PRM (first has a PRM, other has another PRM)" in said
    assert [test.first for test in report.tests] == ["first cot", "first cot", "first best-of-n:4"]


def test_difficulty_comes_from_another_run_of_the_same_policy_where_a_run_has_no_samples(tmp_path, run):
    cot = [outcome(one, "cot", [("1", ())]) for one in ITEMS]
    alone = write(tmp_path / "alone", {"cot": default_plan("cot")}, ITEMS, cot)
    report, known = figures(alone, run)
    assert known["alone", "cot", "difficulty easy", "accuracy"].value == 1.0
    assert any("by best-of-n:4 of first" in note for note in report.notes)
    report, known = figures(alone)
    assert not any("difficulty" in key[2] for key in known)
    assert any(note.startswith("How hard the problems of alone are is not known") for note in report.notes)


def test_the_same_id_of_other_data_is_not_compared(tmp_path, run):
    changed = [*ITEMS[:2], item(2, family="lin", level="2").__class__("p2", "Another?", "3")]
    other = write(tmp_path / "other", {"best-of-n:4": SCORED}, changed, outcomes(items=changed))
    report, known = figures(run, other)
    assert any(note.startswith("The data differ") and "p2" in note for note in report.notes)
    assert known["other", "best-of-n:4", "all", "accuracy"].n == 2


def test_runs_without_a_common_problem_are_reported_and_not_compared(tmp_path, run):
    items = [item(7)]
    other = write(tmp_path / "other", {"cot": default_plan("cot")}, items, [outcome(items[0], "cot", [("8", ())])])
    report, known = figures(run, other)
    assert known["first", "cot", "all", "accuracy"].n == 3
    assert any("share no problem" in note for note in report.notes)
    assert {(test.first, test.second) for test in report.tests} == {("first cot", "first best-of-n:4")}


def test_an_unfinished_run_says_so_and_reports_what_is_done(tmp_path):
    plans = {"best-of-n:4": SCORED, "cot": default_plan("cot")}
    folder = write(tmp_path / "half", plans, ITEMS, outcomes()[:2], left_out=("p9",), unreadable=("p1",))
    with open(folder / "outcomes.jsonl", "ab") as file:
        file.write(b'{"problem": "p2", "torn')
    text = report_text([folder])
    flat = " ".join(text.split())
    assert "The run half is not finished: 2 of 6 searches are done, and the figures are of these." in flat
    assert "Left out of half: 1 problem of made without an answer: p9." in flat
    assert "answers of 1 problem can only be compared as text: p1." in flat


def test_failed_searches_are_listed(tmp_path):
    broken = outcome(ITEMS[1], "cot", [], reason="failed", detail="the server\x1b[2J went away")
    done = [outcome(ITEMS[0], "cot", [("1", ())]), broken]
    folder = write(tmp_path / "run", {"cot": default_plan("cot")}, ITEMS[:2], done)
    report, known = figures(folder)
    assert known["run", "cot", "all", "accuracy"].value == 0.5
    assert [(one.plan, one.problem) for one in report.failures] == [("cot", "p1")]
    text = report_text([folder])
    assert "cot: p1" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("form", ["text", "markdown", "csv", "json"])
def test_names_from_a_dataset_steer_no_terminal_in_any_form(tmp_path, form):
    name = "a\x1b[31m\x9b\u202e\u2028\U000e0041b"
    items = [item(place, family=name) for place in range(3)]
    folder = write(tmp_path / "run", {"best-of-n:4": SCORED}, items, outcomes(items=items), policy=name, prm=name)
    report, _ = figures(folder)
    shown = FORMATS[form][1](report)
    assert not any(is_hidden(char) for char in shown if char != "\n")
    assert "[31m" in shown
    if form == "json":
        assert any(name in figure["group"] for figure in json.loads(shown)["figures"])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_answers_that_could_not_be_judged_are_counted(tmp_path, count):
    done = [outcome(item, "cot", [("1", ())], undecided=count if item is ITEMS[0] else 0) for item in ITEMS[:2]]
    report, _ = figures(write(tmp_path / "run", {"cot": default_plan("cot")}, ITEMS[:2], done))
    found = [note for note in report.notes if "could not be compared" in note]
    assert [note.split()[0] for note in found] == ([str(count)] if count else [])


NOTHING = Tokens(PolicyTokens(0, 0, 0), PrmTokens(0, 0))
"""What a search takes that cannot begin."""


def shared(report):
    return [note for note in report.notes if note.startswith("Plans of one run share")]


def test_what_plans_of_a_run_share_is_told_of_however_little_it_is(tmp_path, run):
    # The fixture's plans have both computed a whole prompt.
    report, _ = figures(run)
    (note,) = shared(report)
    assert "which the policy keeps, and steps of the same text, which the PRM reads once): in first, that" in note
    assert (
        "counted for the plan that came first, so that others may look cheaper in tokens and FLOPs than they are"
        in note
    )
    assert "sampled tokens are exact, and a folder of its own for each plan (`tts-tui eval --out`)" in note
    assert report.sharing == ("first",)
    assert "Plans of one run share" in report_text([run])
    assert "\n- Plans of one run share" in as_markdown(report)
    cot = [outcome(one, "cot", [("1", ())]) for one in ITEMS]
    bare = write(tmp_path / "bare", {"cot": default_plan("cot"), "majority:4": MAJORITY}, ITEMS, cot, prm=None)
    with open(bare / "outcomes.jsonl", "ab") as file:
        file.writelines(msgspec.json.encode(one) + b"\n" for one in outcomes("majority:4", MAJORITY))
    (note,) = shared(figures(bare)[0])
    assert "(its prompt, which the policy keeps): in bare, that" in note
    both, _ = figures(run, bare)
    assert "in first and bare, that" in shared(both)[0]


def test_plans_that_have_nothing_in_common_share_nothing(tmp_path):
    plans = {"cot": default_plan("cot"), "best-of-n:4": SCORED}
    alone = write(tmp_path / "alone", {"best-of-n:4": SCORED}, ITEMS, outcomes())
    assert not shared(figures(alone)[0])
    cot = [outcome(ITEMS[2], "cot", [("1", ())])]
    apart = write(tmp_path / "apart", plans, ITEMS, [*outcomes()[:2], *cot])
    assert not shared(figures(apart)[0])
    # Each in a folder of its own.
    other = write(tmp_path / "other", {"cot": default_plan("cot")}, ITEMS, cot)
    report, _ = figures(alone, other)
    assert not shared(report) and not report.sharing


def test_nothing_is_shared_where_nothing_is_kept(tmp_path):
    cold = Tokens(PolicyTokens(10, 0, 8), PrmTokens(0, 0))
    plans = {"cot": default_plan("cot"), "cot:1,seed=3": default_plan("cot")}
    done = [outcome(one, plan, [("1", ())], tokens=cold) for plan in plans for one in ITEMS]
    assert not shared(figures(write(tmp_path / "cold", plans, ITEMS, done))[0])


def test_plans_whose_searches_all_failed_share_nothing(tmp_path):
    failed = [
        outcome(one, "auto", [], reason="failed", detail="out of reach", tokens=NOTHING, flops=Flops(0.0, 0.0))
        for one in ITEMS
    ]
    plans = {"auto": default_plan("auto"), "best-of-n:4": SCORED}
    report, _ = figures(write(tmp_path / "failed", plans, ITEMS, [*outcomes(), *failed]))
    assert len(report.failures) == 3
    assert not shared(report)
    assert not any("auto" in note for note in report.notes)


def test_a_calibration_is_told_once_and_briefly(tmp_path):
    source = f"tts-tui calibrate on 339 problems of families ({','.join(f'family{n}' for n in range(30))}, validation)"
    first, second = f"2026-11-28T09:59:09+00:00, {source}", f"2026-11-29T09:59:09+00:00, {source}"
    auto = default_plan("auto")
    plans = dict.fromkeys(("auto", "auto,target_accuracy=0.5", "auto:4"), auto)
    done = [outcome(one, plan, [("1", (0.5,))]) for plan in plans for one in ITEMS]
    places = []
    for name in ("one", "two"):
        folder = write(tmp_path / name, plans, ITEMS, done)
        header = replace(read_header(folder), calibrations=dict(zip(plans, (first, first, second), strict=True)))
        (folder / "run.json").write_bytes(msgspec.json.encode(header))
        places.append(folder)
    notes = [note for note in figures(places[0])[0].notes if "chose by" in note]
    assert notes == [
        "auto and auto,target_accuracy=0.5 in one chose by 2026-11-28T09:59:09+00:00, tts-tui calibrate on 339 "
        "problems of families …",
        "auto:4 in one chose by 2026-11-29T09:59:09+00:00, tts-tui calibrate on 339 problems of families …",
    ]
    notes = [note for note in figures(*places)[0].notes if "chose by" in note]
    assert len(notes) == 2
    assert notes[1].startswith("auto:4 in one and auto:4 in two chose by 2026-11-29")
    assert source in (places[0] / "run.json").read_text("utf-8")


# -- forms -------------------------------------------------------------------------------------------------------------


def test_plain_text_fits_whatever_plans_are_called(tmp_path):
    names = ["best-of-n:4,score=min,vote=prm-vote,temperature=0.7", *(f"best-of-n:4,m={m}" for m in range(9))]
    done = [one for name in names for one in outcomes(name)]
    folder = write(tmp_path / "run", dict.fromkeys(names, SCORED), ITEMS, done)
    text = report_text([folder])
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("best-of-n:4,m=8") > 3


def test_columns_that_do_not_fit_stand_below_behind_the_first_one():
    table = Table("T", ("a", "b" * 20, "c" * 20), (("x", "1", "2"),))
    assert drawn(table, 30).splitlines() == ["T", f"a  {'b' * 20}", "x  1", "", f"a  {'c' * 20}", "x  2"]


def test_the_command_prints_all_forms_of_the_same_report(capsys, run):
    code = main.run(["report", str(run), "--format", "csv"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["run", "plan", "group", "measure", "value", "low", "high", "n"]
    (accuracy,) = [r for r in rows if (r["plan"], r["group"], r["measure"]) == ("cot", "all", "accuracy")]
    assert float(accuracy["value"]) == pytest.approx(2 / 3)
    assert [row["measure"] for row in rows[-3:]] == ["difference", "p", "p holm"]

    assert main.run(["report", str(run), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"][0]["policy"] == "a policy"
    assert len(found["figures"]) == len(rows) - 3

    assert main.run(["report", str(run), "--format", "markdown"]) == 0
    assert "\n| cot | 3 | 66.7 |" in capsys.readouterr().out

    assert main.run(["report", str(run)]) == 0
    assert "cot less best-of-n:4" in capsys.readouterr().out


@pytest.mark.slow
def test_plots_and_all_forms_are_written(capsys, tmp_path, run):
    assert main.run(["report", str(run), "--plots", "--out", str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {f"accuracy-{what}.{kind}" for what in ("tokens", "flops", "difficulty") for kind in ("svg", "png")}
    assert names == pictures | {f"report.{kind}" for kind in ("txt", "md", "csv", "json")}
    svg = (tmp_path / "out" / "accuracy-tokens.svg").read_text()
    assert "majority of best-of-n:4, fewer samples" in svg
    said = "what plans of one run share is counted for the one that came first"
    assert said in svg
    assert main.run(["report", str(run), "--plots"]) == 0
    assert (run / "report" / "accuracy-tokens.svg").read_text() == svg
    alone = write(tmp_path / "alone", {"best-of-n:4": SCORED}, ITEMS, outcomes())
    assert main.run(["report", str(alone), "--plots"]) == 0
    for cost in ("tokens", "flops"):
        assert said not in (alone / "report" / f"accuracy-{cost}.svg").read_text()


def test_lines_of_a_picture_are_families_of_plans_and_votes_over_fewer_samples(tmp_path):
    plans = {"best-of-n:4": SCORED, "best-of-n:8": SCORED.replace(n=8), "beam:4,m=2": default_plan("beam", n=4, m=2)}
    done = [one for name in plans for one in outcomes(name)]
    runs = load([write(tmp_path / "run", plans, ITEMS, done)])
    found = {line.label: line for line in lines(make(runs), runs, "flops")}
    assert len(found["best-of-n"].points) == 2
    assert len(found["majority of best-of-n:4, fewer samples"].points) == 3
    assert family("cot") == "cot"


def test_a_plan_that_is_alone_in_its_line_is_called_as_in_the_tables(tmp_path, run):
    plans = {"best-of-n:4": SCORED, "best-of-n:8": SCORED.replace(n=8), "beam:4,m=2": default_plan("beam", n=4, m=2)}
    done = [one for name in plans for one in outcomes(name)]
    runs = load([write(tmp_path / "run", plans, ITEMS, done)])
    assert [line.label for line in lines(make(runs), runs, "tokens")][:2] == ["best-of-n", "beam:4,m=2"]
    several = load([run, tmp_path / "run"])
    made = [line.label for line in lines(make(several), several, "tokens") if not line.resampled]
    assert made == ["first cot", "first best-of-n:4", "run best-of-n", "run beam:4,m=2"]


# -- mistakes ----------------------------------------------------------------------------------------------------------


def test_a_mistake_is_one_sentence(capsys, tmp_path, run):
    (tmp_path / "empty").mkdir()
    started = write(tmp_path / "started", {"cot": default_plan("cot")}, ITEMS, [])
    cases = {
        (str(tmp_path / "none"),): "is not there: give the folder that `tts-tui eval` wrote",
        (str(run / "run.json"),): "is a file, and no folder of a run",
        (str(tmp_path / "empty"),): "there is no run.json in it",
        (str(started),): "is done yet: let `tts-tui eval` go on",
        (str(run), f"{run}/"): "is given twice: a run is not compared with itself",
        (str(run), "--out", str(run / "run.json")): "cannot write",
        (): "missing argument",
    }
    for arguments, said in cases.items():
        code = main.run(["report", *arguments])
        _, err = capsys.readouterr()
        assert code == 2, arguments
        assert err.count("\n") == 1
        assert said in err


def test_runs_of_the_same_name_are_told_apart(tmp_path, run):
    again = write(tmp_path / "more" / "first", {"best-of-n:4": SCORED}, ITEMS, outcomes())
    assert [one.name for one in load([run, again])] == [f"{tmp_path.name}/first", "more/first"]
