"""The settings file: what it may hold, and that every mistake in it is one sentence that names file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tts_tui import files
from tts_tui.errors import ConfigError, UsageError
from tts_tui.ui import settings
from tts_tui.ui.settings import Settings, check_keymap


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTS_TUI_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


def test_without_a_file_everything_is_as_usual(file):
    assert settings.load() == Settings(theme="", record=True, policy="", prm="", keymap={})
    assert not file.exists()


def test_an_empty_file_is_the_same(file):
    file.touch()
    assert settings.load() == Settings()


def test_without_the_variable_the_file_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("TTS_TUI_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert files.config_path().name == "config.toml"
    assert "tts-tui" in files.config_path().parts


def test_everything_can_be_set(file):
    file.write_text(
        """
        theme = "nord"
        record = false
        policy = "sglang:http://127.0.0.1:30000"
        prm = "none"
        [keymap]
        "app.quit" = "f10,ctrl+x"
        """
    )
    assert settings.load() == Settings(
        theme="nord",
        record=False,
        policy="sglang:http://127.0.0.1:30000",
        prm="none",
        keymap={"app.quit": "f10,ctrl+x"},
    )


def test_the_mark_that_some_editors_put_first_is_no_mistake(file):
    file.write_bytes(b'\xef\xbb\xbftheme = "nord"\n')
    assert settings.load().theme == "nord"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'record = "yes"', r"record"),
        (b"theme = 3", r"theme"),
        (b'keymap = "q"', r"keymap"),
        (b"[keymap]\nquit = 3", r"keymap"),
        (b"theme =", r"is not TOML"),
        (b"theme = 'a'\ntheme = 'b'", r"is not TOML"),
        (b"x = " + b"[" * 10_000, r"nested"),
        (b"\xff\xfe", r"is not TOML"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_file_and_key(file, content, said):
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as raised:
        settings.load()
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_folder_in_its_place_is_told(file):
    file.mkdir()
    with pytest.raises(ConfigError, match="cannot read the settings"):
        settings.load()


def test_a_mistake_in_the_settings_is_the_callers():
    assert issubclass(ConfigError, UsageError)
    assert ConfigError.exit_code == 2


# -- keys --------------------------------------------------------------------------------------------------------------

KNOWN = {"run.pause": "space", "run.prune": "x", "app.quit": "ctrl+q"}


def test_known_names_may_have_any_keys():
    check_keymap({"run.pause": "f5", "app.quit": "ctrl+x,f10"}, KNOWN)
    check_keymap({}, KNOWN)


def test_for_an_unknown_name_the_nearest_is_offered():
    with pytest.raises(ConfigError, match=r"no key 'run\.pawse': did you mean 'run\.pause'\?"):
        check_keymap({"run.pawse": "f5"}, KNOWN)


def test_where_none_is_near_the_list_is_named():
    with pytest.raises(ConfigError, match=r"no key 'zzzzzzzz': `tts-tui keys` lists all names"):
        check_keymap({"zzzzzzzz": "f5"}, KNOWN)


def test_an_empty_key_is_refused():
    with pytest.raises(ConfigError, match=r"gives 'run\.pause' no key"):
        check_keymap({"run.pause": " "}, KNOWN)
