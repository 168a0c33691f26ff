"""`tts-tui profile-prm`: measures of made-up scores whose values are known, the profile it writes, its mistakes."""

from __future__ import annotations

import json
import random
import tomllib

import pytest
from msgspec.structs import replace

from tests.evaluation.made_runs import SCORED, item, outcome, write
from tts_tui import profiles
from tts_tui.backends.adapter.reward_model import TITLE
from tts_tui.cli import main
from tts_tui.cli.profile_prm import name_of
from tts_tui.errors import ContextExceeded, UsageError
from tts_tui.evaluation.datasets import families
from tts_tui.evaluation.datasets.loading import Item, family_items
from tts_tui.evaluation.loaded_run import load
from tts_tui.evaluation.prm import processbench
from tts_tui.evaluation.prm.labelled import Judged, first_wrong, of_outcomes, of_recordings, scored_plan
from tts_tui.evaluation.prm.metrics import grouped, halves, measure
from tts_tui.evaluation.prm.processbench import read, score
from tts_tui.evaluation.prm.profile import as_text, as_toml
from tts_tui.evaluation.prm.voting_report import auc
from tts_tui.evaluation.samples import Sampled, Solution
from tts_tui.profiles import user
from tts_tui.protocols import ModelInfo, StepScore


def values(findings, section):
    (found,) = [one for one in findings.sections if one.name == section]
    return {one.name: one for one in found.values}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of profiles of its own."""
    monkeypatch.setattr(user, "folder", lambda: tmp_path / "profiles")
    return tmp_path / "profiles"


# -- measures ----------------------------------------------------------------------------------------------------------


def solution(problem, right, scores, size=10, **more):
    return Judged(id=f"{problem} {right} {scores}", problem=problem, right=right, scores=scores, size=size, **more)


def test_solutions_are_told_apart_within_problems_and_over_all():
    hard = [solution("hard", True, (0.3,)), solution("hard", False, (0.2,)), solution("hard", False, (0.1,))]
    easy = [solution("easy", True, (0.9,)), solution("easy", True, (0.8,)), solution("easy", False, (0.85,))]
    found = values(measure([*hard, *easy], (), (), "tokens"), "solutions")
    assert found["solutions"].value == 6
    assert found["right"].value == 0.5
    assert found["problems with right and wrong ones"].value == 2
    assert found["AUC within problems, last"].value == pytest.approx((1.0 + 0.5) / 2)
    assert found["AUC of all solutions, last"].value == pytest.approx(7 / 9)


def labelled():
    """Forty solutions of three steps; a PRM that is right but for one wrong step that it neglects in each tenth."""
    made = []
    for number in range(40):
        error = -1 if number % 2 else number % 3
        scores = [0.9 if error < 0 or place < error else 0.1 for place in range(3)]
        if number % 10 == 0:
            scores[error] = 0.95
        made.append(solution(f"p{number}", error < 0, tuple(scores), error=error, known=3 if error < 0 else error))
    return made


def test_steps_are_told_apart_up_to_the_first_error():
    own_ = labelled()
    found = values(measure(own_, own_, (), "characters"), "steps")
    right = [score for one in own_ for score in one.scores[: one.known]]
    wrong = [one.scores[one.error] for one in own_ if one.error >= 0]
    assert found["right steps"].value == len(right)
    assert found["first wrong steps"].value == len(wrong) == 20
    assert found["AUC of all steps"].value == pytest.approx(auc(right, wrong)) == pytest.approx(0.8)
    assert found["mean score of first wrong steps"].value == pytest.approx(0.1 * 0.8 + 0.95 * 0.2)


def test_first_errors_are_measured_on_other_problems_than_their_threshold_was_chosen_on():
    own_ = labelled()
    findings = measure(own_, own_, (), "characters")
    found = values(findings, "first errors")
    first, second = halves(grouped(own_))
    assert not {one.problem for one in first} & {one.problem for one in second}
    assert len(first) == len(second) == 20
    wrong = [one for one in second if one.error >= 0]
    # What is neglected is never found: in the last step nothing is below the threshold, in others a later step is.
    neglected = [one for one in wrong if one.scores[one.error] > 0.9]
    assert found["of solutions with an error"].value == pytest.approx(1 - len(neglected) / len(wrong))
    assert found["of solutions without"].value == 1.0
    assert 0.1 < found["threshold"].value < 0.95
    (note,) = [section.note for section in findings.sections if section.name == "first errors"]
    assert "chosen on 20 solutions of one half of the problems, and measured on 20 of the other" in note


def test_too_few_errors_are_not_measured():
    few = labelled()[:10]
    findings = measure(few, few, (), "characters")
    assert {one.name for one in findings.sections if one.values} == {"solutions", "calibration"}
    flat = " ".join(as_text(findings).split())
    assert "Steps: not measured, since too few right steps (20) or first wrong ones (5) are known: it takes 10" in flat
    assert (
        "First errors: not measured, since there are too few solutions with a known first error (5) or without any "
        "(5): it takes 10 of each, and 4 problems (here 10)."
    ) in flat
    assert (
        "Length: not measured, since there are too few right or wrong solutions: it takes 10, not all as long or as "
        "good as each other."
    ) in flat
    assert "Votes: not measured, since solutions of a file have no answers that could vote" in flat
    assert set(tomllib.loads(as_toml("x", "x", findings, "x", {}))["measured"]) == {"solutions", "calibration"}


def test_what_is_too_few_for_the_length_is_said_of_right_and_wrong_ones_apart():
    made = [solution(f"p{number // 2}", True, (number / 40,), number) for number in range(12)]
    made += [solution(f"p{number}", False, (0.1,)) for number in range(12)]
    findings = measure(made, (), (), "tokens", "nobody has looked.")
    (note,) = [one.note for one in findings.sections if one.name == "length"]
    assert note.endswith(
        "Not measured for wrong ones, since there are too few wrong solutions: it takes 10 on problems that have two "
        "or more of these, not all as long or as good as each other."
    )
    assert "Steps and first errors: not measured, since nobody has looked." in as_text(findings)


def test_length_bias_is_that_at_equal_correctness_of_one_problem():
    rng = random.Random(0)
    made = []
    for number in range(20):
        base = rng.random() / 2
        made += [solution(f"p{number}", True, (base + 0.3 - 0.01 * size,), size) for size in (10, 20, 30)]
        made += [solution(f"p{number}", False, (base + 0.001 * size,), size + number) for size in (10, 20)]
    findings = measure(made, (), (), "tokens")
    found = values(findings, "length")
    assert found["correlation among right ones"].value == pytest.approx(-1.0)
    assert found["correlation among wrong ones"].value == pytest.approx(1.0)
    assert found["short less long, right ones"].value == pytest.approx(0.2)
    assert "right ones -1.00 (-1.00 to -1.00), wrong ones +1.00" in findings.biases["length"]


def test_where_no_problem_has_two_solutions_length_is_compared_over_all():
    made = [solution(f"p{number}", True, (1 - number / 40,), number) for number in range(12)]
    findings = measure(made, (), (), "characters")
    assert values(findings, "length")["correlation among right ones"].value == pytest.approx(-1.0)
    assert "of all problems, since none has two" in as_text(findings).replace("\n", " ")


VOTED = [
    ("1", (0.1, 0.9)),
    ("1", (0.1, 0.9)),
    ("9", (0.6, 0.5)),
    ("8", (0.6, 0.5)),
    ("8", (0.6, 0.6)),
    ("8", (0.6, 0.5)),
]
"""Right where the last score counts, wrong by the lowest one and by the majority."""


def voted(count=16):
    items = [item(number) for number in range(count)]
    made = [
        [(str(number + 1) if name == "1" else f"-{name}", scores) for name, scores in VOTED] for number in range(count)
    ]
    return items, [outcome(one, "best-of-n:6", own_) for one, own_ in zip(items, made, strict=True)]


def test_the_score_and_vote_that_do_best_are_found_and_whether_it_matters_is_said():
    _, outcomes = voted()
    findings = measure(of_outcomes(outcomes), (), outcomes, "tokens")
    found = values(findings, "votes")
    assert (findings.score, findings.vote, findings.problems) == ("last", "prm-max", 16)
    assert found["last prm-max"].value == 1.0
    assert found["majority"].value == found["min prm-max"].value == 0.0
    assert found["best less majority"].value == 1.0
    assert found["p of best against majority"].value == pytest.approx(2 / 2**16)
    assert found["p that pairs differ"].value < 0.001
    assert found["held out, best pair of one half (last prm-max)"].value == 1.0
    assert "differ more than by chance" in findings.biases["votes"]
    assert set(values(findings, "votes by difficulty")) == {
        "medium problems",
        "medium, majority",
        "medium, last prm-max",
        "medium, last prm-vote",
    }


def test_calibration_is_against_right_solutions():
    made = [solution(f"p{number}", number % 2 == 0, (0.5,)) for number in range(20)]
    findings = measure(made, (), (), "tokens")
    assert values(findings, "calibration")["calibration error, last"].value == 0.0
    assert findings.biases["calibration"].startswith("Expected calibration error 0.000")


# -- steps of family problems ------------------------------------------------------------------------------------------


def test_a_program_says_which_step_is_the_first_wrong_one():
    problem = families.Problem("add1", "validation", 0, "What is 1 + 2 + 3?", "6", ("1 + 2 = 3", "3 + 3 = 6"))

    def made(*steps, answer):
        return Solution(steps, ((1,),) * len(steps), "eos", answer)

    solutions = (
        made("1 + 2 = 3\n\n", "3 + 3 = 6\n\n", "It is 6.", answer="6"),
        made("1 + 2 = 4\n\n", "4 + 3 = 7\n\n", "It is 7.", answer="7"),
        made("1 + 2 = 3\n\n", "3 + 3 = 6\n\n", "It is 7.", answer="7"),
        made("2 + 2 = 4\n\n", "It is 4.", answer="4"),
        made("1 + 2 = 3\n\n", "3 + 3 = 7\n\n", answer=None),
        made("1 + 2 = 4\n\n", "It is 6.", answer="6"),
        made("1 + 2 = 3\n\n", answer=None),
    )
    assert first_wrong(Sampled(problem, solutions)) == [(-1, 3), (0, 0), (2, 2), (None, 0), (1, 1), (0, 0), (None, 1)]


# -- files -------------------------------------------------------------------------------------------------------------

LINE = {"id": "a", "problem": "What is 1 + 1?", "steps": ["1 + 1 = 3", "It is 3."], "label": 0}


def lines_of(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def test_a_file_of_processbench_is_read(tmp_path):
    right = {**LINE, "id": "b", "label": -1, "final_answer_correct": False}
    first, second = read(lines_of(tmp_path / "gsm8k.jsonl", LINE, right))
    assert (first.id, first.error, first.known, first.right, first.size) == ("a", 0, 0, False, 17)
    assert (second.error, second.known, second.right) == (-1, 2, False)


def test_columns_of_processbench_are_read_whatever_their_case(tmp_path):
    row = {"Id": "a", "Question": LINE["problem"], "Steps": LINE["steps"], "LABEL": 0}
    assert read(lines_of(tmp_path / "own.jsonl", row)) == read(lines_of(tmp_path / "gsm8k.jsonl", LINE))
    twice = {**LINE, "question": "another"}
    with pytest.raises(UsageError, match=r"line 1 has several columns .*problem and question.*--problem-column"):
        read(lines_of(tmp_path / "own.jsonl", twice))
    (found,) = read(lines_of(tmp_path / "own.jsonl", twice), "question")
    assert found.problem == "another"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: not an object with problem, steps and label"),
        (json.dumps({**LINE, "id": "b", "problem": " "}), "line 2: no problem in it"),
        (json.dumps({**LINE, "id": "b", "steps": []}), "line 2: its steps must be texts"),
        (json.dumps({**LINE, "id": "b", "steps": ["x", " "]}), "line 2: its steps must be texts"),
        (
            json.dumps({**LINE, "id": "b", "label": 2}),
            "line 2: its label must be -1 or the number of a step from 0 to 1",
        ),
        (json.dumps({**LINE, "id": "b", "label": True}), "line 2: its label"),
        (json.dumps({**LINE, "id": "b", "final_answer_correct": 1}), "line 2: its final_answer_correct"),
        (json.dumps(LINE), "line 2: the id a is there twice"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, line, said):
    path = tmp_path / "file.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{line}\n")
    with pytest.raises(UsageError, match=said):
        read(path)


class Scores:
    """Scores a step by how many come before it; a problem with "long" in it is too long."""

    def __init__(self):
        self.asked = []

    async def score(self, requests):
        self.asked.append(len(requests))
        if any("long" in one.prompt.problem for one in requests):
            raise ContextExceeded("too long")
        assert all(text.endswith("\n\n") for one in requests for text in one.steps[:-1] if len(one.steps) > 1)
        return [StepScore(1 / len(one.steps)) for one in requests]


async def test_every_step_is_scored_and_what_is_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(processbench, "_BATCH", 2)
    made = [solution(name, True, (), steps=("a", "b", "c")) for name in ("one", "long", "two")]
    prm, told = Scores(), []
    found = await score(prm, None, made, told.append)
    assert [(one.problem, one.scores) for one in found] == [("one", (1, 1 / 2, 1 / 3)), ("two", (1, 1 / 2, 1 / 3))]
    assert told == [2, 3]
    assert prm.asked == [6, 3, 3, 3]


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_run_is_measured_without_a_model_and_its_profile_is_shown(capsys, tmp_path, home):
    items, outcomes = voted(40)
    changed = SCORED.replace(n=6)
    folder = write(tmp_path / "run", {"best-of-n:6": changed}, items, outcomes, prm=TITLE)
    assert main.run(["profile-prm", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "240 solutions of 40 problems (made) by best-of-n:6, policy a policy" in out
    assert "Score and vote stay last prm-max, which do best here, too." in out
    assert max(map(len, out.splitlines()[2:-2])) <= 100
    known = tomllib.loads((home / "embedded.toml").read_text("utf-8"))
    assert known["measured"]["votes"]["majority"] == 0.0
    assert "tts-tui profile-prm, 20" in known["measured"]["votes"]["source"]

    assert main.run(["profiles"]) == 0
    assert "Measured here: embedded." in capsys.readouterr().out
    assert main.run(["profiles", "show", "embedded"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("embedded\n\nmade of")
    assert "embedded: embedded PRM, measured here" in shown


NAME = "qwen-7b"
"""A profile with another default than what does best on `VOTED`."""


def profiled(capsys, folder, outcomes, *more):
    """Measures a run; what is said of score and vote, on one line."""
    items = [item(number) for number in range(len(outcomes))]
    run = write(folder, {"best-of-n:6": SCORED.replace(n=6)}, items, outcomes)
    assert main.run(["profile-prm", str(run), "--name", NAME, *more]) == 0
    paragraphs = capsys.readouterr().out.split("\n\n")
    return " ".join(next(one for one in paragraphs if one.startswith("Score and vote")).split())


def test_a_difference_beyond_noise_on_enough_problems_changes_the_default(capsys, tmp_path, home):
    said = profiled(capsys, tmp_path / "run", voted(30)[1])
    assert said.startswith(
        "Score and vote are now last prm-max: right on 100.0% of 30 problems, and prod prm-vote on 0.0%"
    )
    known = tomllib.loads((home / f"{NAME}.toml").read_text("utf-8"))["defaults"]
    assert known["source"].startswith("tts-tui profile-prm, 20")
    assert profiles.vote_defaults(NAME) == {"score": "last", "vote": "prm-max"}


def test_few_problems_change_no_default(capsys, tmp_path, home):
    shipped = profiles.vote_defaults(NAME)
    now = f"{shipped['score']} {shipped['vote']}"
    assert now != "last prm-max"
    said = profiled(capsys, tmp_path / "few", voted(29)[1])
    assert said.startswith(f"Score and vote stay {now}: last prm-max do best here, but 29 problems are too few")
    assert profiles.vote_defaults(NAME) == shipped
    known = tomllib.loads((home / f"{NAME}.toml").read_text("utf-8"))
    assert "defaults" not in known and known["measured"]["votes"]["last prm-max"] == 1.0


def test_a_difference_that_may_be_chance_changes_no_default(capsys, tmp_path, home):
    shipped = profiles.vote_defaults(NAME)
    plain = [("1", (0.9, 0.9)), ("1", (0.9, 0.9)), ("9", (0.1, 0.1))]
    some = [VOTED if number < 4 else plain for number in range(40)]
    outcomes = [
        outcome(item(n), "best-of-n:6", [(str(n + 1) if name == "1" else f"-{name}", s) for name, s in own_])
        for n, own_ in enumerate(some)
    ]
    said = profiled(capsys, tmp_path / "run", outcomes)
    assert "last prm-max are right on 100.0% of 40 problems, and" in said
    assert "on 90.0%: no further apart than by chance (p " in said
    assert profiles.vote_defaults(NAME) == shipped


def test_a_default_that_was_measured_here_outlives_measurements_that_do_not_change_it(capsys, tmp_path, home):
    profiled(capsys, tmp_path / "many", voted(40)[1])
    before = tomllib.loads((home / f"{NAME}.toml").read_text("utf-8"))
    assert before["defaults"]["score"] == "last"
    said = profiled(capsys, tmp_path / "few", voted(12)[1])
    assert said == "Score and vote stay last prm-max, which do best here, too."
    after = tomllib.loads((home / f"{NAME}.toml").read_text("utf-8"))
    assert after["defaults"] == before["defaults"] and "of 40 problems" in after["defaults"]["source"]
    assert "of 12 problems" in after["source"]


def test_a_profile_that_no_prm_has_says_only_what_is_in_it(capsys, tmp_path, home):
    said = profiled(capsys, tmp_path / "run", voted(40)[1], "--out", str(tmp_path / "mine.toml"))
    assert said.startswith("Score and vote in this profile are last prm-max")
    assert not home.exists()


def test_the_profile_can_have_another_name_and_place(capsys, tmp_path, home):
    items, outcomes = voted(4)
    folder = write(tmp_path / "run", {"best-of-n:6": SCORED}, items, outcomes)
    assert main.run(["profile-prm", str(folder), "--name", "mine"]) == 0
    assert (home / "mine.toml").exists()
    assert main.run(["profiles", "show", "mine"]) == 0
    assert "mine: a PRM, measured here" in capsys.readouterr().out
    assert main.run(["profile-prm", str(folder), "--out", str(tmp_path / "other.toml")]) == 0
    assert [path.name for path in home.iterdir()] == ["mine.toml"]


def test_a_mistake_is_one_sentence(capsys, tmp_path, home):
    items, outcomes = voted(4)
    folder = write(tmp_path / "run", {"best-of-n:6": SCORED}, items, outcomes)
    plain = write(tmp_path / "plain", {"cot": SCORED}, items[:1], [outcome(items[0], "cot", [("1", ())])])
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    solutions = lines_of(tmp_path / "file.jsonl", LINE)
    cases = {
        (str(tmp_path / "none"),): "cannot read",
        (str(tmp_path / "nope"),): "nope, which is not there: give the folder of a run of `tts-tui eval`, or a JSONL",
        (str(tmp_path / "nope.jsonl"),): "`tts-tui profile-prm --help` says what is in it",
        (str(empty),): "is empty: give one JSON object a line",
        (str(plain),): "has scores: evaluate a plan that asks a PRM",
        (str(folder), "--prm", "embedded"): "leave --prm out",
        (str(folder), "--problem-column", "x"): "leave --problem-column out",
        (str(folder), "--name", "../up"): "is no name of a profile",
        (str(folder), "--out", str(solutions / "x")): "cannot write the profile",
        (str(solutions), "--prm", "none"): "there is no PRM to measure",
        (str(solutions), "--prm", "nope:x"): "unknown reward model",
        (str(solutions), "--allow-pickle"): "--allow-pickle can be given for a reward model that is loaded",
    }
    for arguments, said in cases.items():
        code = main.run(["profile-prm", *arguments])
        _, err = capsys.readouterr()
        assert code == 2, arguments
        assert err.count("\n") == 1
        assert said in err
    assert not home.exists()


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("add0", "no recording of best-of-n:6 that can be read is left in "),
        ("", "there are no step labels: a program labels the steps of problem families alone."),
    ],
)
def test_a_run_whose_steps_are_not_known_says_why(capsys, tmp_path, home, family, said):
    plain = [item(number) for number in range(4)]
    items = family_items([family], "validation", 4) if family else plain
    names = {one.id: other.id for one, other in zip(plain, items, strict=True)}
    outcomes = [replace(one, problem=names[one.problem]) for one in voted(4)[1]]
    folder = write(tmp_path / "run", {"best-of-n:6": SCORED.replace(n=6)}, items, outcomes)
    assert main.run(["profile-prm", str(folder)]) == 0
    assert f"Steps and first errors: not measured, since {said}" in " ".join(capsys.readouterr().out.split())


def test_profiles_are_named_after_their_prm():
    assert name_of(ModelInfo(TITLE, 1, 1, "adapter")) == "embedded"
    assert name_of(ModelInfo("any", 1, 1, "qwen-7b:paper")) == "qwen-7b"
    assert name_of(ModelInfo("My Own/PRM!", 1, 1)) == "my-own-prm"
    assert name_of(ModelInfo("§", 1, 1)) == "prm"


def test_texts_of_a_profile_survive_whatever_stands_in_them():
    _, outcomes = voted(4)
    findings = measure(of_outcomes(outcomes), (), outcomes, "tokens")
    odd = 'a "PRM"\\ \x7f\n\t é ж'
    known = tomllib.loads(as_toml("x", odd, findings, odd, {"score": "last", "vote": "prm-max"}))
    assert known["title"] == known["source"] == odd


# -- the real thing ----------------------------------------------------------------------------------------------------


@pytest.mark.embedded
@pytest.mark.slow
def test_the_embedded_prm_finds_planted_errors(capsys, tmp_path, home):
    made = []
    for problem in families.problems("add1", "validation", 12):
        steps = [f"Step {number}: {step}" for number, step in enumerate(problem.steps, 1)]
        left, right = problem.steps[0].rsplit(" = ", 1)
        wrong = [
            f"Step 1: {left} = {int(right) + 1}",
            *steps[1:],
            f"The answer is \\boxed{{{int(problem.answer) + 1}}}.",
        ]
        whole = [*steps, f"The answer is \\boxed{{{problem.answer}}}."]
        for label, texts in ((-1, whole), (0, wrong)):
            made.append({"id": f"{problem.index} {label}", "problem": problem.question, "steps": texts, "label": label})
    assert main.run(["profile-prm", str(lines_of(tmp_path / "planted.jsonl", *made))]) == 0
    capsys.readouterr()
    known = tomllib.loads((home / "embedded.toml").read_text("utf-8"))["measured"]
    assert known["steps"]["first wrong steps"] == 12
    assert known["steps"]["AUC of all steps"] > 0.9
    assert known["first errors"]["of solutions with an error"] > 0.5
    assert "votes" not in known


async def test_steps_of_a_run_on_families_are_taken_from_its_recordings(tmp_path):
    from tests.scripted import ScriptedPolicy, ScriptedPRM
    from tts_tui import Solver

    problem = families.problem("add0", "validation", 0)
    (step,) = problem.steps
    right = f"The answer is \\boxed{{{problem.answer}}}."
    wrong = "The answer is \\boxed{99}."

    def script(path, draw):
        return f"{step}\n\n" if not path else right if draw % 2 else wrong

    one = Item("validation-add0-0000", problem.question, problem.answer, family="add0")
    other = Item("validation-add0-0001", "Not the question of that number", "1", family="add0")
    folder = tmp_path / "run"
    plan = SCORED.replace(n=4)
    async with Solver(ScriptedPolicy(script, counted=True), ScriptedPRM(lambda path: 0.5)) as solver:
        recording = tmp_path / "one.jsonl"
        result = await solver.solve(problem.question, plan=plan, record=recording)
    made = [outcome(own_, "best-of-n:4", [(result.answer, (0.5, 0.5))]) for own_ in (one, other)]
    write(folder, {"best-of-n:4": plan}, [one, other], made)
    for own_ in (one, other):
        place = folder / "recordings" / "best-of-n-4" / f"{own_.id}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(recording.read_bytes())
    (run,) = load([folder])
    found = of_recordings(run, scored_plan(run))
    assert len(found) == 4
    assert {one_.problem for one_ in found} == {one.id}
    assert {(one_.right, one_.error, one_.known) for one_ in found} == {(True, -1, 2), (False, 1, 1)}
