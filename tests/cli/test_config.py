"""`config.toml`: what it may hold, whom it reaches, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tts_tui.cli import commands, config, main
from tts_tui.errors import ConfigError, UsageError


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTS_TUI_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


def test_without_a_file_nothing_is_set():
    assert not any(
        table for name, table in config.defaults(main.cli).items() if name not in ("serve", "profiles", "models")
    )


def test_shared_keys_reach_every_command_that_has_them(file):
    file.write_text('policy = "hf:a"\nprm = "none"\ncalibration = "c.json"\napi-key = "k"\n')
    made = config.defaults(main.cli)
    assert made["solve"] == {"policy": "hf:a", "prm": "none", "calibration": "c.json", "api_key": "k"}
    assert made["train-prm"] == {"policy": "hf:a"}
    assert made["serve"]["prm"] == made["doctor"] == {"api_key": "k"}
    assert made["strategies"] == {}


def test_the_table_of_a_command_comes_before_shared_keys(file):
    file.write_text('policy = "hf:a"\n[eval]\npolicy = "hf:b"\nplan = ["cot", "auto"]\n[serve.policy]\nport = 1\n')
    made = config.defaults(main.cli)
    assert made["eval"] == {"policy": "hf:b", "plan": ["cot", "auto"]} and made["solve"] == {"policy": "hf:a"}
    assert made["serve"] == {"policy": {"port": 1}, "prm": {}}


def test_a_shared_policy_is_not_loaded_to_measure_a_prm(file):
    file.write_text('policy = "hf:a"\n')
    assert config.defaults(main.cli)["profile-prm"] == {}


def test_a_home_in_a_path_is_the_users(file):
    file.write_text('calibration = "~/c.json"\n')
    assert config.defaults(main.cli)["solve"]["calibration"] == str(Path("~/c.json").expanduser())


MISTAKES = [
    ("x = = 1", "is not TOML"),
    ('polcy = "x"', "unknown key 'polcy': did you mean 'policy'?"),
    ("n = 3", "such as [solve]"),
    ("[solv]\nn = 3", "did you mean 'solve'?"),
    ("[solve]\nmax_rp = 3", "unknown key 'max_rp' in [solve]: did you mean 'max_rps'?"),
    ("[serve]\nport = 3", "unknown key 'port' in [serve]"),
    ("[serve.policies]\nport = 3", "did you mean 'policy'?"),
    ("solve = 3", "solve must be a table"),
    ("policy = 3", "policy must be a text in quotes, not 3"),
    ("[solve]\nn = '3'", "[solve] n must be a whole number, not '3'"),
    ("[solve]\nn = true", "[solve] n must be a whole number, not True"),
    ("[solve]\nn = 3.5", "[solve] n must be a whole number, not 3.5"),
    ("[solve]\ntimeout = '3'", "[solve] timeout must be a number"),
    ("[solve]\nallow-pickle = 1", "[solve] allow_pickle must be true or false, not 1"),
    ("[eval]\nplan = ['cot', 3]", "[eval] plan must be a text in quotes, not 3"),
    ("[train-prm]\nrank = 0", "[train-prm] rank"),
    ("display = 'tuo'", "display: 'tuo' is not one of"),
    ("theme = 3", "theme must be a text in quotes"),
    ("keymap = 3", "keymap must be a table"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_a_mistake_is_one_sentence_with_the_file_and_the_key(text, said, file, capsys):
    file.write_text(text)
    assert main.run(["strategies"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and said in err and str(file) in err


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["keys"]])
def test_help_is_had_whatever_the_file_holds(command, file, capsys):
    file.write_text("x")
    assert main.run(command) == 0


def test_config_says_where_the_file_is_and_what_is_set(file, monkeypatch, capsys):
    assert main.run(["config"]) == 0
    assert f"{file} (not there)" in capsys.readouterr().out
    file.write_text('api_key = "secret"\n[solve]\nn = 32\n')
    monkeypatch.setenv("TTS_TUI_SOLVE_M", "2")
    monkeypatch.setenv("TTS_TUI_API_KEY", "secret, too")
    assert main.run(["config"]) == 0
    out = capsys.readouterr().out
    assert "set: [solve] n = 32" in out and "set: TTS_TUI_SOLVE_M=2" in out and "secret" not in out
    file.write_text("[solve]\nn = 'x'\n")
    assert main.run(["config"]) == 2
    out, err = capsys.readouterr()
    assert str(file) in out and "[solve] n" in err


def test_settings_for_other_models_do_not_stand_in_the_way(file, capsys, monkeypatch):
    """A key or a tokenizer for servers is no mistake where the models are in this process."""
    file.write_text('api_key = "k"\nprm_tokenizer = "t"\n[solve]\nmax_rps = 3\nconcurrency = 2\ntarget_tokens = 9\n')
    made = []

    def stop(policy, prm, given):
        made.append(solver(policy, prm, given))
        raise UsageError("enough")

    solver = commands.make_solver
    monkeypatch.setattr(commands, "make_solver", stop)
    assert main.run(["solve", "x", "--strategy", "cot"]) == 2
    assert capsys.readouterr().err == "tts-tui: enough\n" and len(made) == 1
    monkeypatch.setattr(commands, "make_solver", solver)
    assert main.run(["solve", "x", "--max-rps", "3"]) == 2
    assert "--max-rps can be given for a policy on a server only" in capsys.readouterr().err


def test_a_mistake_in_the_settings_is_the_callers():
    assert issubclass(ConfigError, UsageError)


def test_the_variable_that_serve_ui_hands_to_its_sessions_is_known():
    environment = {"TTS_TUI_RUNS": "/somewhere"}
    assert list(config.unknown_variables(main.cli, environment, "tui")) == []
