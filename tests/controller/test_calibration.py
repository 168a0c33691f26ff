"""Calibration files: found by their models, and refused with a clear message."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from tts_tui.controller.calibration import (
    FORMAT,
    Calibration,
    Curve,
    HiddenStateProjection,
    Point,
    check_models,
    decode,
    file_name,
    find,
    folder,
    load,
    names_of,
    save,
)
from tts_tui.controller.difficulty import AnswerLikelihood, DifficultyModel
from tts_tui.controller.prompt_features import NAMES, features
from tts_tui.errors import CalibrationError
from tts_tui.protocols import ModelInfo

POLICY = ModelInfo("acme/Small 1B", 10**9, 4096)
PRM = ModelInfo("judge-1B", 10**9, 4096)
MADE = Calibration(
    policy=POLICY.name,
    prm=PRM.name,
    source="a test",
    problems=120,
    samples=16,
    difficulty=DifficultyModel((), (), (), (), 0.25, 2.0),
    likelihood=AnswerLikelihood(slope=0.9),
    curves=(
        Curve(
            strategy="best-of-n",
            alone=(0.1, 0.2, 0.3, 0.4, 0.5),
            win=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0),
            lose=(-1.0, -2.0, -3.0, -4.0, -5.0, -6.0),
        ),
    ),
    frontier=(Point(0.01, 300.0, 0.4),),
    validation={"auc hard": 0.8},
)


OUTLOOK = {
    "names": list(NAMES), "centre": [0.0] * len(NAMES), "spread": [1.0] * len(NAMES), "weights": [0.1] * len(NAMES),
    "bias": 0.0, "concentration": 1.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_what_was_saved_is_found_by_the_models(home):
    path = folder() / file_name(*names_of(POLICY, PRM))
    save(MADE, path)
    assert path.is_relative_to(home)
    assert find(POLICY, PRM) == MADE == load(path)
    assert [own.name for own in path.parent.iterdir()] == [path.name]  # no partial file is left


def test_other_models_find_nothing():
    save(MADE, folder() / file_name(*names_of(POLICY, PRM)))
    assert find(POLICY, None) is None
    assert find(ModelInfo("other", 10**9, 4096), PRM) is None


def test_the_file_is_readable_and_has_a_format():
    path = folder() / "a.json"
    save(MADE, path)
    stored = json.loads(path.read_text())
    assert stored["format"] == FORMAT
    assert (stored["policy"], stored["prm"], stored["likelihood"]["slope"]) == (POLICY.name, PRM.name, 0.9)
    assert len(path.read_text().splitlines()) > 20


@pytest.mark.parametrize(
    ("policy", "prm", "name"),
    [
        ("acme/Small 1B", "judge-1B", "acme-small-1b--judge-1b.json"),
        ("../../etc/passwd", "none", "..-..-etc-passwd--none.json"),
        ("C:\\models\\a", "none", "c-models-a--none.json"),
    ],
)
def test_names_of_files_stay_in_their_folder(policy, prm, name):
    assert file_name(policy, prm) == name


@pytest.mark.parametrize(("format", "age"), [(FORMAT - 1, "an older format"), (FORMAT + 1, "a newer format")])
def test_another_format_is_refused_whatever_else_it_holds(format, age):
    with pytest.raises(CalibrationError, match=rf"the file has {age} .*tts-tui calibrate"):
        decode(json.dumps({"format": format, "what": "ever"}).encode(), "the file")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": "one"}', b'{"format": 2, "policy": "x"}'])
def test_a_damaged_file_is_refused(data):
    with pytest.raises(CalibrationError, match=r"the file is damaged .*tts-tui calibrate"):
        decode(data, "the file")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probe", 0),
        ("sample_tokens", -1.0),
        ("overhead", -1.0),
        ("price", 0.0),
        ("curves", [{"strategy": "dvts", "alone": [0.0] * 5, "win": [0.0] * 6, "lose": [0.0] * 6, "cost": 0.0}]),
        ("projection", {"centre": [0.1, 0.2], "axes": [[1.0]]}),
        ("projection", {"centre": [0.1, 0.2], "axes": [[1.0, 0.0]]}),
        ("difficulty", OUTLOOK | {"spread": [1.0] * (len(NAMES) - 1) + [0.0]}),
        ("difficulty", OUTLOOK | {"concentration": 0.0}),
        (
            "difficulty",
            OUTLOOK | {"neighbours": {"rows": [], "problems": [1], "shares": [], "width": 0.1, "weight": 1.0}},
        ),
        ("frontier", [{"price": 0.1, "tokens": 100.0, "accuracy": 1.5}]),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path, name, value):
    save(MADE, tmp_path / "own.json")
    stored = {**json.loads((tmp_path / "own.json").read_text()), "difficulty": OUTLOOK}
    decode(json.dumps(stored).encode(), "the file")
    with pytest.raises(CalibrationError, match=r"the file is damaged .*tts-tui calibrate"):
        decode(json.dumps({**stored, name: value}).encode(), "the file")


def test_an_outlook_that_lacks_some_of_its_numbers_is_refused(tmp_path):
    save(MADE, tmp_path / "own.json")
    stored = json.loads((tmp_path / "own.json").read_text())
    stored["difficulty"]["names"] = ["one more"] * (len(stored["difficulty"]["weights"]) + 1)
    with pytest.raises(CalibrationError, match=r"the file is damaged \(an outlook has as many names as"):
        decode(json.dumps(stored).encode(), "the file")


def test_a_damaged_file_of_ones_own_is_not_passed_over():
    path = folder() / file_name(*names_of(POLICY, PRM))
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(CalibrationError, match="is damaged"):
        find(POLICY, PRM)


def test_a_calibration_of_other_models_is_refused():
    check_models(MADE, POLICY, PRM)
    with pytest.raises(
        CalibrationError, match="is of acme/Small 1B under judge-1B, and not of acme/Small 1B under none"
    ):
        check_models(MADE, POLICY, None)
    path = folder() / file_name(*names_of(POLICY, PRM))
    save(replace(MADE, policy="another"), path)
    with pytest.raises(CalibrationError, match="is of another under judge-1B"):
        find(POLICY, PRM)


def test_what_cannot_be_read_or_written_is_said(tmp_path):
    with pytest.raises(CalibrationError, match=r"cannot read the calibration .*No such file"):
        load(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(CalibrationError, match="cannot write the calibration"):
        save(MADE, tmp_path / "file" / "a.json")


def test_it_says_what_it_rests_on():
    assert MADE.basis == "calibrated on 120 problems with 16 samples each"
    guessed = replace(MADE, problems=0)
    assert not guessed.is_measured
    assert guessed.basis.startswith("priors from the paper, as nothing was calibrated for these models")


def test_features_are_read_only_where_the_outlook_takes_them():
    assert MADE.values("What is 1 + 1?") == []
    taking = replace(MADE, difficulty=DifficultyModel(NAMES, *[(1.0,) * len(NAMES)] * 3, 0.0, 1.0))
    assert taking.values("What is 1 + 1?") == features("What is 1 + 1?")


def test_hidden_states_become_features_and_none_is_the_centre():
    taking = replace(
        MADE,
        difficulty=DifficultyModel((*NAMES, "state 1", "state 2"), *[(1.0,) * (len(NAMES) + 2)] * 3, 0.0, 1.0),
        projection=HiddenStateProjection((0.5, 0.0, -0.5), ((1.0, 0.0, 0.0), (0.0, 0.6, 0.8))),
    )
    assert taking.values("What is 1 + 1?", (1.5, 1.0, 0.5))[-2:] == pytest.approx([1.0, 1.4])
    assert taking.values("What is 1 + 1?")[-2:] == [0.0, 0.0]
    with pytest.raises(CalibrationError, match="hidden states of 3 numbers, and this policy has 2"):
        taking.values("What is 1 + 1?", (1.0, 2.0))


def test_a_calibration_from_before_there_were_readers_is_read(home):
    save(MADE, home / "calibrations" / file_name(POLICY.name, PRM.name))
    path = home / "calibrations" / file_name(POLICY.name, PRM.name)
    older = {key: value for key, value in json.loads(path.read_text()).items() if key != "projection"}
    path.write_text(json.dumps(older))
    assert load(path) == MADE


def test_curves_are_found_by_strategy():
    assert MADE.curve("best-of-n") is MADE.curves[0]
    assert MADE.curve("dvts") is None
