"""Profiles in the user's folder, as written by `tts-tui profile-prm`: local measurements of reward models.

A profile with the name of a shipped one refines it: its score and vote take precedence. Other profiles stand alone.
None of them defines how a model's input is laid out, so none can break a search. A profile that cannot be read is
ignored.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from tts_tui.errors import ConfigError, UsageError
from tts_tui.files import read_toml
from tts_tui.plan import SCORES, VOTES

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,60}")


def folder() -> Path:
    """Return the folder of the profiles: below `TTS_TUI_HOME` if that is set, else in the user's data folder."""
    home = os.environ.get("TTS_TUI_HOME")
    return (Path(os.path.expanduser(home)) if home else user_data_path("tts-tui")) / "profiles"


def path(name: str) -> Path:
    """Return the file of the profile called `name`.

    Raises:
        UsageError: `name` is not a valid name of a profile.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a profile: use small letters, digits, dots and dashes, at most 61")
    return folder() / f"{name}.toml"


def names() -> tuple[str, ...]:
    """Return the names of all of the user's profiles, including those that cannot be read."""
    try:
        found = [entry.name.removesuffix(".toml") for entry in folder().iterdir() if entry.name.endswith(".toml")]
    except OSError:
        return ()
    return tuple(sorted(name for name in found if _NAME.fullmatch(name)))


def profile(name: str) -> dict[str, Any] | None:
    """Return the user's profile of this name, or None if there is none.

    Raises:
        ConfigError: The file cannot be read, or its contents are invalid; the message names the file.
    """
    if not _NAME.fullmatch(name):
        return None
    file = path(name)
    try:
        found = read_toml(file, "the profile")
    except FileNotFoundError:
        return None
    wrong = _wrong(found, name)
    if wrong:
        raise ConfigError(f"the profile {file} cannot be used, {wrong}: fix or remove it")
    return found


def defaults(name: str) -> dict[str, str]:
    """Return the score and vote of the user's profile of this name; empty if there is none that can be read."""
    try:
        found = profile(name) or {}
    except ConfigError:
        return {}
    return {key: found["defaults"][key] for key in ("score", "vote") if key in found.get("defaults", {})}


def kept(name: str) -> dict[str, str]:
    """Return score, vote and their source in the user's profile of this name, to rewrite it; empty if it has none."""
    if not defaults(name):
        return {}
    table = (profile(name) or {})["defaults"]
    return {key: table[key] for key in ("score", "vote", "source") if isinstance(table.get(key), str)}


def trouble() -> list[str]:
    """Return a sentence about each profile that cannot be used."""
    found = []
    for name in names():
        try:
            profile(name)
        except ConfigError as error:
            found.append(str(error))
    return found


def _wrong(found: dict[str, Any], name: str) -> str:
    """Return the reason why a profile is invalid; empty if it is valid."""
    if found.get("name") != name:
        return f"for the name in it is {found.get('name')!r}"
    tables = [found.get(key, {}) for key in ("defaults", "biases", "measured")]
    if not all(isinstance(table, dict) for table in tables):
        return "for defaults, biases and measured must be tables"
    if not all(isinstance(found.get(key, ""), str) for key in ("title", "source")):
        return "for its title and source must be texts"
    for key, known in (("score", SCORES), ("vote", VOTES)):
        if tables[0].get(key, known[0]) not in known:
            return f"for its {key} must be one of {', '.join(known)}"
    if not all(_plain(value) for table in (found, *tables) for value in table.values()):
        return "for a list in it is empty or holds more than numbers and texts"
    return ""


def _plain(value: Any) -> bool:
    """Return whether a value can be displayed: a text, a number, a list of either, or a table of such values."""
    if isinstance(value, dict):
        return all(map(_plain, value.values()))
    if isinstance(value, list):
        return bool(value) and any(all(isinstance(one, kind) for one in value) for kind in (str, int | float))
    return True
