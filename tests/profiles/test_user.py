"""Profiles that a user measured refine the shipped ones; a broken one is told of and stands in nobody's way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tts_tui import profiles
from tts_tui.cli import main
from tts_tui.cli import profiles as profile_view
from tts_tui.errors import ConfigError, UsageError
from tts_tui.profiles import user

FOLDER = user.folder
"""Before the tests' own environment replaces it."""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(user, "folder", lambda: tmp_path)
    return tmp_path


def put(home, name, text):
    (home / f"{name}.toml").write_text(text, "utf-8")


MEASURED = """
name = "qwen-7b"
title = "my copy"
source = "measured on a Tuesday"
[defaults]
score = "min"
vote = "prm-max"
source = "the same"
[biases]
length = "None was found."
[measured."votes"]
"majority" = 0.5
"majority interval" = [0.4, 0.6]
"best pair" = "min prm-max"
"""


class Model:
    """A reward model that knows its profile, and has defaults of its own."""

    def __init__(self, profile, **defaults):
        self.profile, self.defaults = profile, defaults


def test_score_and_vote_that_were_measured_here_win(home):
    assert profiles.vote_defaults("qwen-7b")["score"] == "prod"
    assert profiles.votes_for(Model("qwen-7b", score="avg")) == {"score": "avg"}
    put(home, "qwen-7b", MEASURED)
    assert profiles.vote_defaults("qwen-7b") == {"score": "min", "vote": "prm-max"}
    assert profiles.votes_for(Model("qwen-7b", score="avg")) == {"score": "min", "vote": "prm-max"}
    assert profiles.votes_for(Model("")) == {}
    assert profiles.profile("qwen-7b")["defaults"]["score"] == "prod"


def test_a_profile_without_votes_leaves_the_shipped_ones(home):
    put(home, "qwen-7b", 'name = "qwen-7b"\n[biases]\nlength = "Some."\n')
    assert profiles.vote_defaults("qwen-7b") == {"score": "prod", "vote": "prm-vote"}


def test_both_are_shown(home, capsys):
    put(home, "qwen-7b", MEASURED)
    put(home, "mine", 'name = "mine"\n[biases]\nlength = "Some."\n')
    assert main.run(["profiles", "show", "qwen-7b"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("qwen-7b: Qwen2.5-Math-PRM-7B\n")
    assert "qwen-7b: my copy, measured here; its score and vote are the ones that count" in shown
    assert "Measured: votes\n  majority 0.5; majority interval 0.4 to 0.6" in shown
    assert main.run(["profiles", "show", "MINE"]) == 0
    assert capsys.readouterr().out.startswith("mine: mine, measured here")
    assert main.run(["profiles", "show", "mine", "--layout", "sal"]) == 2
    assert "has no layouts" in capsys.readouterr().err
    listing = profile_view.listing(140)
    rows = {row.split()[0]: row.split() for row in listing.split("\n\n")[0].splitlines()}
    assert rows["qwen-7b"][-3:] == ["min", "prm-max", "73.5"]
    assert rows["mine"][-3:] == ["-", "-", "-"]
    assert "Measured here: mine, qwen-7b." in listing


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "is not TOML"),
        ('name = "other"', "the name in it is 'other'"),
        ('defaults = 1\nname = "qwen-7b"', "must be tables"),
        ('title = 1\nname = "qwen-7b"', "must be texts"),
        ('name = "qwen-7b"\n[defaults]\nscore = "best"', "its score must be one of min, last, avg, prod"),
        ('name = "qwen-7b"\n[defaults]\nvote = "all"', "its vote must be one of"),
        ('name = "qwen-7b"\n[measured.a]\nx = []', "a list in it is empty"),
        ('name = "qwen-7b"\n[biases]\nx = [1, "a"]', "a list in it is empty or holds more"),
    ],
)
def test_a_broken_profile_is_a_sentence_and_counts_nowhere(home, text, said, capsys):
    put(home, "qwen-7b", text)
    with pytest.raises(ConfigError, match=said):
        user.profile("qwen-7b")
    assert profiles.vote_defaults("qwen-7b") == {"score": "prod", "vote": "prm-vote"}
    assert main.run(["profiles"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert said in listed
    assert "Measured here" not in listed
    assert main.run(["profiles", "show", "qwen-7b"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("qwen-7b: Qwen2.5-Math-PRM-7B\n")
    assert said in " ".join(shown.split())


def test_a_profile_that_is_no_text_or_no_file_is_a_sentence(home):
    (home / "a.toml").write_bytes(b"\xff\xfe")
    (home / "b.toml").mkdir()
    assert user.names() == ("a", "b")
    assert ["is not TOML" in text or "cannot read" in text for text in user.trouble()] == [True, True]


def test_names_are_plain_and_lead_nowhere_else(home):
    put(home, "..x", "")
    put(home, "UPPER", "")
    assert user.names() == ()
    assert user.profile("../x") is None
    with pytest.raises(UsageError, match="is no name of a profile"):
        user.path("../x")


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))
    assert FOLDER() == tmp_path / "profiles"
    monkeypatch.delenv("TTS_TUI_HOME")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        assert Path(tmp_path / "data") in FOLDER().parents
    assert FOLDER().name == "profiles"
