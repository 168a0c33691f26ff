"""Calibrations are fitted on cases, judged on others, and kept in files that only their models read."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from tts_tui.cli import main
from tts_tui.controller import calibration as files
from tts_tui.controller.prompt_features import features
from tts_tui.errors import UsageError
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.evaluation.outcomes import Answered, Outcome
from tts_tui.plan import Plan
from tts_tui.protocols import ModelInfo
from tts_tui.training.controller import calibrate as calibrating
from tts_tui.training.controller.calibrate import CalibratedModels, calibrate, cases_of
from tts_tui.training.controller.cases import Case, Sample, SearchOutcome, SolutionSet, elect
from tts_tui.training.controller.prior_curves import case
from tts_tui.training.controller.simulation import replayed
from tts_tui.tree.totals import Flops, PolicyTokens, PrmTokens, Tokens

POLICY = ModelInfo("small", 100, 4096)
PRM = ModelInfo("judge", 50, 4096)
MODELS = CalibratedModels(POLICY, PRM)


def made(count: int) -> list[Case]:
    """Problems at random; the length of their text says how hard they are."""
    rng = random.Random(5)
    found = []
    for number in range(count):
        one = case(number, rng)
        words = " ".join(["hard"] * (16 - one.right))
        found.append(Case(one.id, "", tuple(features(f"What is {number} {words}?")), one.pool, one.searches))
    return found


def outcome(plan: str, problem: str, solutions: tuple[Answered, ...], reason: str = "solved") -> Outcome:
    tokens = Tokens(PolicyTokens(0, 0, 100), PrmTokens(40, 0))
    return Outcome(
        problem=problem, plan=plan, answer=None, right=False, solutions=solutions, reason=reason, detail="",
        tokens=tokens, flops=Flops(0, 0), seconds=1.0,
    )  # fmt: skip


def test_costs_of_the_prm_are_weighed_by_its_size_and_shared_by_length():
    solutions = (Answered("1", 0, True, (0.9,), 30), Answered("2", 1, False, (0.2,), 70))
    plans = {"best-of-n:2": Plan(n=2), "dvts:8": Plan(strategy="dvts", n=8)}
    outcomes = {
        ("best-of-n:2", "a"): outcome("best-of-n:2", "a", solutions),
        ("dvts:8", "a"): outcome("dvts:8", "a", solutions[:1]),
        ("best-of-n:2", "b"): outcome("best-of-n:2", "b", solutions, "failed"),
    }
    (found,) = cases_of([Item("a", "1 + 0", "1"), Item("b", "2", "2")], outcomes, plans, MODELS)
    assert MODELS.weight == 0.5
    assert [one.tokens for one in found.pool] == pytest.approx([36.0, 84.0])
    assert found.searches["dvts"].tokens == pytest.approx(120.0)
    assert [len(part) for part in found.searches["dvts"].parts] == [1, 0], (
        "a subtree that came to nothing is a part too"
    )
    assert found.right == 1


def test_fixed_plans_cost_what_their_problems_cost_once_but_majority_voting_no_scoring():
    cases = [replace(case, pool=tuple(replace(one, length=60.0) for one in case.pool)) for case in made(3)]
    found = calibrating.fixed(cases, "last", "prm-max", 50.0)
    each = calibrating.fixed(cases, "last", "prm-max")
    assert found["majority:4"][1] == each["majority:4"][1] == 240
    for name in ("best-of-n:4", "dvts:4"):
        assert found[name] == [each[name][0], pytest.approx(each[name][1] + 50)]


def test_too_few_problems_are_refused():
    with pytest.raises(UsageError, match="too few to calibrate"):
        calibrate(made(calibrating.FEWEST - 1), MODELS, "test")


def test_the_command_refuses_too_few_problems_before_a_model_is_loaded(capsys):
    assert main.run(["calibrate", "--limit", "3"]) == 2
    assert "too few" in capsys.readouterr().err


def test_the_command_refuses_a_file_that_cannot_be_written_before_a_model_is_loaded(tmp_path, capsys):
    (tmp_path / "file").touch()
    for out, words in ((tmp_path, "is a folder"), (tmp_path / "file" / "mine.json", "is not writable")):
        assert main.run(["calibrate", "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1


def test_votes_of_hands_are_those_of_the_plan():
    hand = SolutionSet("last", "prm-vote")
    hand.add([Sample("1", True, (0.4,), 1.0), Sample("1", True, (0.4,), 1.0), Sample("2", False, (0.6,), 1.0)])
    assert hand.elected == 0 and hand.is_right
    assert elect(hand.seen, "prm-max") == 1
    assert elect([], "majority") == -1


@pytest.mark.slow
def test_a_calibration_learns_what_is_there_and_survives_its_file(tmp_path):
    cases = made(40)
    found = calibrate(cases, MODELS, "test")
    assert found.problems == 40 and found.is_measured
    early = found.validation["before the probe"]
    assert early["auc hard"] > 0.85, "the text says it"
    late = found.validation["after 4 samples"]
    assert late["auc easy"] > early["auc easy"] - 0.03
    prices = [point.price for point in found.frontier]
    assert prices == sorted(prices, reverse=True)
    assert found.frontier[0].tokens < found.frontier[-1].tokens
    assert found.frontier[0].accuracy <= found.frontier[-1].accuracy + 0.02
    path = tmp_path / "one.json"
    files.save(found, path)
    assert files.load(path) == found
    assert json.loads(path.read_text())["policy"] == "small"
    played = replayed(cases[:10], found, found.price, 4, 1)
    assert all(one.tokens > 0 and one.steps for one in played)


def test_a_case_that_is_never_searched_is_played_by_its_samples_alone():
    from tts_tui.controller import priors

    known = priors.calibration(POLICY, PRM)
    own = [Case(one.id, "", (), one.pool, {}) for one in made(4)]
    lone = [curve for curve in known.curves if curve.strategy == "best-of-n"]
    from msgspec.structs import replace

    for one in replayed(own, replace(known, curves=tuple(lone)), 0.01, 4, 2):
        assert all(step.startswith("best-of-n") for step in one.steps)
        assert one.tokens <= 16


def test_searches_know_their_width_and_solutions():
    one = Sample("1", True, (0.5,), 1.0, False)
    search = SearchOutcome(16, ((one,), (), (one,), (one,)), 64.0)
    assert search.width == 4
    assert len(search.solutions) == 3


@pytest.mark.embedded
@pytest.mark.slow
def test_the_command_calibrates_and_goes_on_where_it_was(tmp_path):
    call = [
        sys.executable, "-m", "tts_tui", "calibrate", "--limit", "20", "--search-problems", "2", "--samples", "4",
        "--work-dir", str(tmp_path / "work"), "--out", str(tmp_path / "own.json"),
    ]  # fmt: skip
    first = subprocess.run(call, capture_output=True, text=True, timeout=500)
    assert first.returncode == 0, first.stderr
    assert "20 problems, 20 searches to do" in first.stderr
    found = files.load(Path(tmp_path / "own.json"))
    assert found.problems == 20 and found.policy.startswith("SmolLM2")
    assert found.overhead > 5, "questions are read"
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as again:  # which would only fit all of it once more
        assert again.stderr is not None
        said = iter(again.stderr.readline, "")
        assert any("20 problems, 0 searches to do" in line for line in said)
        again.kill()
