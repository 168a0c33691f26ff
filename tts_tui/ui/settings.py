"""The terminal UI's part of the user's settings: theme, keys, models, and whether runs are recorded."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import msgspec

from tts_tui import files
from tts_tui.errors import ConfigError


class Settings(msgspec.Struct, frozen=True):
    """The settings of the terminal UI; `tts_tui.cli.config` has all that the settings file may hold.

    Attributes:
        theme: The name of a Textual theme, such as `textual-light`; empty for the default.
        record: Whether runs of the terminal UI are recorded.
        policy, prm: The models of runs that are started from a replay.
        keymap: A mapping from names of keys (`tts-tui keys` lists them) to the key, or to several, separated by commas.
    """

    theme: str = ""
    record: bool = True
    policy: str = ""
    prm: str = ""
    keymap: dict[str, str] = {}


def load() -> Settings:
    """Return the settings from the file, or the defaults if there is none.

    Raises:
        ConfigError: The file cannot be read or is not valid.
    """
    try:
        return msgspec.convert(files.read_config(), Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the settings {files.config_path()} cannot be used: {error}") from error


def check_keymap(keymap: Mapping[str, str], known: Mapping[str, object]) -> None:
    """Check that all names of keys in `keymap` are known.

    Raises:
        ConfigError: A name is unknown; the message suggests the nearest one.
    """
    for name, key in keymap.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"[keymap] has no key {name!r}: {hint}`tts-tui keys` lists all names")
        if not key.strip():
            raise ConfigError(f'[keymap] gives {name!r} no key: name one, such as {name} = "f5"')
