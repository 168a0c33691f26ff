"""The terminal UI's part of the user's settings: theme, keys, models, whether runs are recorded."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import msgspec

from tts_tui import files
from tts_tui.errors import ConfigError


class Settings(msgspec.Struct, frozen=True):
    """What the terminal UI takes from the file; `tts_tui.cli.config` has all that may be in it.

    Attributes:
        theme: Name of a theme of Textual, such as `textual-light`; empty for the default.
        record: Whether runs of the terminal UI are recorded.
        policy, prm: Models of runs that are begun from a replay.
        keymap: Names of keys (`tts-tui keys` lists them) -> the key, or several with commas.
    """

    theme: str = ""
    record: bool = True
    policy: str = ""
    prm: str = ""
    keymap: dict[str, str] = {}


def load() -> Settings:
    """The settings; the defaults where there is no file.

    Raises:
        ConfigError: The file cannot be read or holds what it must not.
    """
    try:
        return msgspec.convert(files.read_config(), Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the settings {files.config_path()} cannot be used: {error}") from error


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
