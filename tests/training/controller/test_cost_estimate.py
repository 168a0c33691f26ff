"""`tts-tui calibrate` says what it costs before it starts, how long it takes once it knows, and mixes up no runs."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace

from tests.evaluation.test_runner import Policy
from tests.scripted import ScriptedPRM
from tts_tui import Solver
from tts_tui.cli import calibrate, commands
from tts_tui.cli.main import run as cli
from tts_tui.controller import calibration, priors
from tts_tui.displays.eval_progress import EvalProgress
from tts_tui.evaluation.run_folder import read_outcomes
from tts_tui.evaluation.runner import EvalStatus, PlanStanding
from tts_tui.training.controller import cost_estimate
from tts_tui.training.controller.cost_estimate import Cost, Time


@pytest.fixture
def scripted(monkeypatch, tmp_path):
    """The command with scripted models, up to the fit."""
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path / "home"))
    solver = Solver(Policy(), ScriptedPRM(lambda steps: 0.5))
    monkeypatch.setattr(commands, "make_solver", lambda policy, prm, given: solver)
    monkeypatch.setattr(commands, "load_models", lambda policy, prm, **more: None)
    monkeypatch.setattr(calibrate, "_fit", lambda *_: 0)
    return solver


def call(tmp_path, *more: str) -> list[str]:
    sizes = ["--limit", "20", "--search-problems", "2", "--samples", "4"]
    return ["calibrate", *sizes, "--work-dir", str(tmp_path / "work"), *more]


def told(capsys) -> list[str]:
    return [line.removeprefix("tts-tui: ") for line in capsys.readouterr().err.splitlines()]


def test_tokens_are_told_before_it_starts_and_time_as_soon_as_the_pace_is_known(scripted, tmp_path, capsys):
    assert cli(call(tmp_path)) == 0
    lines = told(capsys)
    each = f"{priors_or_shipped():.0f}"
    assert lines[0].startswith("44 searches to do with up to 116 samples: about ")
    assert f"tokens, at {each} a sample as calibrated before; how long that takes is said" in lines[0]
    (pace,) = [place for place, line in enumerate(lines) if line.startswith("at this pace, all searches together take")]
    before = [line for line in lines[:pace] if "left" in line]
    samples = lines.index("samples: 20 problems, 20 searches to do")
    assert before and all("time left unknown yet" in line for line in before[samples:-1]), "said at the first chance"
    assert pace < lines.index("dvts: 2 problems, 2 searches to do") < lines.index("beam: 2 problems, 2 searches to do")


def priors_or_shipped() -> float:
    tokens, _ = cost_estimate._usual("embedded")
    return tokens


def test_what_is_done_says_what_the_rest_costs(scripted, tmp_path, capsys):
    assert cli(call(tmp_path)) == 0
    told(capsys)
    done = [one for part in ("singles", "samples", "dvts", "beam") for one in read_outcomes(tmp_path / "work" / part)]
    of = {
        name: [
            (one.tokens.policy.prompt_computed + one.tokens.policy.completion + one.tokens.prm.computed)
            / int(name.rpartition(":")[2])
            for one in done
            if one.plan == name
        ]
        for name in ("best-of-n:1", "best-of-n:4", "dvts:4", "beam:4")
    }
    more = sum(4 * count * sum(of[name]) / len(of[name]) for name, count in (("dvts:4", 1), ("beam:4", 1)))
    assert cli([*call(tmp_path), "--search-problems", "3"]) == 0
    lines = told(capsys)
    mean = sum(map(sum, of.values())) / len(done)
    assert lines[0].startswith(
        f"2 searches to do with up to 8 samples: about {float(f'{more:.2g}'):,.0f} tokens, at {mean:.0f} a sample as "
        "in what is done already"
    )
    assert cli([*call(tmp_path), "--search-problems", "3"]) == 0
    lines = told(capsys)
    assert lines[0] == "all searches are done: what is left is to fit"
    assert not any("pace" in line for line in lines)


def test_without_a_calibration_the_assumption_is_told(monkeypatch, tmp_path):
    assert cost_estimate._usual("hf:some/model") == (
        300,
        "if a sample takes 300, for nothing is known of this policy yet",
    )
    monkeypatch.setattr(calibration, "find", lambda policy, prm: None)
    assert cost_estimate._usual("embedded") == (75, "if a sample takes 75")
    own = priors.calibration(Policy().info, None)
    monkeypatch.setattr(calibration, "find", lambda policy, prm: replace(own, sample_tokens=50.4))
    assert cost_estimate._usual("embedded") == (50.4, "at 50 a sample as calibrated before")


def test_tokens_are_told_with_two_digits():
    assert "up to 60 samples: about 590,000 tokens, " in Cost((2, 2), 60, (400_000.0, 188_765.0), "by guess").said


def standing(done: int, left: tuple[float, float] | None) -> EvalStatus:
    return EvalStatus(done, 10, {"best-of-n:4": PlanStanding(done, 0, 0)}, None, left)


def test_time_counts_the_parts_that_follow_and_is_told_once():
    said: list[str] = []
    time = Time(Cost((10, 5), 60, (1000.0, 500.0), ""), said.append)
    tell = time.follow(0, EvalProgress(io.StringIO()))
    tell(standing(3, None))
    assert said == []
    tell(standing(5, (60.0, 90.0)))  # half of this part takes that, and the other part is as much again
    assert said == ["at this pace, all searches together take 2–3 min from now on"]
    tell(standing(6, (50.0, 60.0)))
    time.follow(1, EvalProgress(io.StringIO()))(standing(5, (60.0, 90.0)))
    assert len(said) == 1


def test_a_run_of_eval_is_no_folder_to_work_in(scripted, tmp_path, capsys):
    out = str(tmp_path / "work")
    assert cli(["eval", "families:add0", "--limit", "1", "--plan", "cot", "--out", out]) == 0
    capsys.readouterr()
    assert cli(call(tmp_path)) == 2
    (line,) = told(capsys)
    assert f"{out} is a run of `tts-tui eval`" in line and "--work-dir" in line
    assert not (tmp_path / "work" / "samples").exists()


def test_another_work_folder_is_named_by_its_own_option(scripted, tmp_path, capsys):
    assert cli(call(tmp_path)) == 0
    told(capsys)
    scripted.policy = Policy("other")
    assert cli(call(tmp_path, "--search-problems", "3")) == 2
    assert told(capsys)[-1].endswith("its policy is scripted, not other; choose another folder with --work-dir")


def test_a_calibration_under_a_reward_model_does_not_go_on_without_one(scripted, tmp_path, capsys):
    assert cli(call(tmp_path)) == 0
    before = (tmp_path / "work" / "samples" / "outcomes.jsonl").read_bytes()
    told(capsys)
    scripted.prm = None
    assert cli(call(tmp_path)) == 2
    (line,) = told(capsys)
    assert "scripted-prm" in line and "--work-dir" in line
    assert (tmp_path / "work" / "samples" / "outcomes.jsonl").read_bytes() == before


@pytest.mark.parametrize(("seen", "said"), [(4, "after 4 samples"), (3, "after 3 samples"), (1, "after 1 sample")])
def test_the_summary_says_how_many_samples_its_forecasts_had_seen(seen, said):
    figures = dict.fromkeys(("auc hard", "auc easy", "ece hard", "ece easy"), 0.5)
    validation = {"before the probe": figures, "after 4 samples": figures, "fixed plans": {"majority:4": (0.5, 300.0)}}
    made = replace(priors.calibration(Policy().info, None), validation=validation)
    lines = calibrate.summary(made, seen).splitlines()
    (head,) = [line for line in lines if line.startswith("Difficulty")]
    assert head.endswith(f"  {said}")
    assert len({len(line) for line in lines if line.startswith(("Difficulty", "  auc", "Plans", "  majority"))}) == 1
