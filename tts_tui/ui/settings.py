"""The user's settings: theme, keys, models, whether runs are recorded. A TOML file that need not exist."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from platformdirs import user_config_path

from tts_tui.errors import ConfigError

VARIABLE = "TTS_TUI_CONFIG"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file may hold.

    Attributes:
        theme: Name of a theme of Textual, such as `textual-light`; empty for the default.
        record: Whether runs of the terminal UI are recorded.
        policy, prm: Models of the terminal UI where the command line names none.
        keymap: Names of keys (`tts-tui keys` lists them) -> the key, or several with commas.
    """

    theme: str = ""
    record: bool = True
    policy: str = ""
    prm: str = ""
    keymap: dict[str, str] = {}


def path() -> Path:
    """Where the file is: `TTS_TUI_CONFIG` where that is set, else the user's configuration folder."""
    named = os.environ.get(VARIABLE)
    return Path(os.path.expanduser(named)) if named else user_config_path("tts-tui") / "config.toml"


def load() -> Settings:
    """The settings; the defaults where there is no file.

    Raises:
        ConfigError: The file cannot be read or holds what it must not.
    """
    file = path()
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return Settings()
    except OSError as error:
        raise ConfigError(f"cannot read the settings {file}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"the settings {file} are not text: save them in UTF-8") from None
    try:
        return msgspec.convert(tomllib.loads(text), Settings)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the settings {file} are no TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"the settings {file} are no TOML that can be read: it is nested too deeply") from None
    except msgspec.ValidationError as error:
        known = ", ".join(Settings.__struct_fields__)
        raise ConfigError(f"the settings {file} cannot be used: {error}; known are {known}") from error


def check_keymap(keymap: Mapping[str, str], known: Mapping[str, object]) -> None:
    """Refuses names of keys that there are not.

    Raises:
        ConfigError: The message offers the nearest name.
    """
    for name, key in keymap.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"[keymap] has no key {name!r}: {hint}`tts-tui keys` lists all names")
        if not key.strip():
            raise ConfigError(f'[keymap] gives {name!r} no key: name one, such as {name} = "f5"')
