"""Defaults of command-line options from environment variables and the user's `config.toml`.

Click looks for an option on the command line, in the environment, and in its default map, before it uses the default.
This module fills the default map from the file, and reports mistakes in the file and the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import click

from tts_tui.errors import ConfigError
from tts_tui.files import config_path, read_config

PREFIX = "TTS_TUI"
"""Prefix of all environment variables, followed by the names of command and option."""
SHARED = ("api_key", "calibration", "data", "display", "policy", "prm", "prm_tokenizer")
"""Options with one meaning for all commands; in the file they stand before the first table."""
INTERFACE = {"keymap": dict, "record": bool, "theme": str}
"""Settings of the terminal UI that are not options, with their types."""
_NOT_SHARED = {("profile-prm", "policy")}
"""`profile-prm` loads a policy only on request."""
_OTHERS = ("TTS_TUI_CONFIG", "TTS_TUI_DEBUG", "TTS_TUI_HOME", "TTS_TUI_RUNS")
"""Variables that do not set an option."""
_TESTS = "TTS_TUI_TESTS"
"""The variable of the project's own test suite, which is of no use to others."""

Names = tuple[str, ...]
"""A command's name, preceded by its groups: ("serve", "policy")."""


# --- commands ---------------------------------------------------------------------------------------------------------


def commands(group: click.Group, names: Names = ()) -> Iterator[tuple[Names, click.Command]]:
    """Yield all commands of a group and its subgroups, with their names."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*names, name))
        else:
            yield (*names, name), command


def options(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command by name, with underscores."""
    return {str(one.name): one for one in command.params if isinstance(one, click.Option) and one.expose_value}


def variable(names: Names, option: click.Option) -> str:
    """Return the environment variable of an option."""
    if isinstance(option.envvar, str):
        return option.envvar
    return "_".join((PREFIX, *names, str(option.name))).upper().replace("-", "_")


# --- the environment --------------------------------------------------------------------------------------------------


def unknown_variables(group: click.Group, environment: Mapping[str, str], command: str | None) -> Iterator[str]:
    """Yield a sentence for each environment variable with the prefix that sets nothing.

    Args:
        group: The group of all commands.
        environment: All environment variables.
        command: The invoked command; its variables are suggested first.
    """
    owners: dict[str, list[str]] = {}
    for names, one in sorted(commands(group), key=lambda pair: (pair[0][0] != command, pair[0][0] != "solve")):
        for name, option in options(one).items():
            owners.setdefault(f"{PREFIX}_{name}".upper(), []).append(variable(names, option))
    known = {*_OTHERS, *(found for own in owners.values() for found in own)}
    for name, value in environment.items():
        if name.startswith(f"{PREFIX}_") and name not in known and name != _TESTS and value:
            near = owners.get(name) or get_close_matches(name, sorted(known), n=1, cutoff=0.8)
            hint = f"did you mean {near[0]}? " if near else ""
            yield f"the environment variable {name} sets nothing: {hint}`tts-tui config` says how they are called"


# --- the file ---------------------------------------------------------------------------------------------------------


def defaults(group: click.Group) -> dict[str, Any]:
    """Return the default map of all commands, from the settings file.

    Raises:
        ConfigError: The file is invalid; the message names the key, and the nearest valid one.
    """
    stored = {_plain(key): value for key, value in read_config().items()}
    tables = {names[0] for names, command in commands(group) if options(command)}
    _check_names(stored, [*SHARED, *INTERFACE, *tables], group)
    for key, kind in INTERFACE.items():
        if not isinstance(stored.get(key, kind()), kind):
            raise _unusable(f"{key} must be {_EXPECTED[kind]}, not {stored[key]!r}")
    made: dict[str, Any] = {}
    for names, command in commands(group):
        table = _table(stored, names, group)
        known = options(command)
        _check_names(table, known, group, names)
        shared = {
            key: stored[key] for key in SHARED if key in stored and key in known and (*names, key) not in _NOT_SHARED
        }
        place = made
        for name in names[:-1]:
            place = place.setdefault(name, {})
        place[names[-1]] = {
            **{key: _value(known[key], value, key) for key, value in shared.items()},
            **{key: _value(known[key], value, f"[{'.'.join(names)}] {key}") for key, value in table.items()},
        }
    return made


def _plain(key: str) -> str:
    return key.replace("-", "_")


def _table(stored: Mapping[str, Any], names: Names, group: click.Group) -> dict[str, Any]:
    """Return the table of a command, empty if the file has none."""
    table: Any = stored
    for place, name in enumerate(names):
        table = {_plain(key): value for key, value in table.items()}.get(_plain(name), {})
        said = ".".join(names[: place + 1])
        if not isinstance(table, dict):
            raise _unusable(f"{said} must be a table of the options of `tts-tui {said.replace('.', ' ')}`: [{said}]")
        inner = group.commands[name]
        if isinstance(inner, click.Group):
            group = inner
            _check_names(table, group.commands, group, names[: place + 1])
    return {_plain(key): value for key, value in table.items()}


def _check_names(stored: Iterable[str], known: Iterable[str], group: click.Group, names: Names = ()) -> None:
    """Raise a `ConfigError` for the first unknown key."""
    plain = {_plain(name): name for name in known}
    for key in stored:
        if _plain(key) in plain:
            continue
        where = f"unknown key {key!r}" + (f" in [{'.'.join(names)}]" if names else "")
        owners = [".".join(own) for own, command in commands(group) if _plain(key) in options(command)]
        near = get_close_matches(_plain(key), plain, n=1, cutoff=0.5)
        if owners and not names:
            table = "solve" if "solve" in owners else owners[0]
            raise _unusable(f"{where}: it belongs into the table of a command, such as [{table}]")
        hint = f"did you mean {plain[near[0]]!r}? " if near else ""
        raise _unusable(f"{where}: {hint}known are {', '.join(sorted(plain.values())) or 'none'}")


def _value(option: click.Option, value: Any, key: str) -> Any:
    """Check a value from the file and convert it for the option; expands `~` in paths."""
    several = option.multiple and isinstance(value, list)
    for one in value if several else [value]:
        expected = _expected(option)
        whole = expected is float and type(one) is int
        if type(one) is not expected and not whole:
            raise _unusable(f"{key} must be {_EXPECTED[expected]}, not {one!r}")
        try:
            option.type.convert(one, option, None)
        except click.BadParameter as error:
            raise _unusable(f"{key}: {error.message.rstrip('.')}") from None
    if option.multiple and not several:
        return [value]
    return os.path.expanduser(value) if isinstance(option.type, click.Path) else value


_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes", dict: "a table"}


def _expected(option: click.Option) -> type:
    if option.is_flag:
        return bool
    for click_type, kind in ((click.types.IntParamType, int), (click.types.FloatParamType, float)):
        if isinstance(option.type, click_type):
            return kind
    return str


def _unusable(why: str) -> ConfigError:
    return ConfigError(f"the settings {config_path()} cannot be used: {why}")


# --- for people -------------------------------------------------------------------------------------------------------


def explain(group: click.Group) -> None:
    """Append how to set options elsewhere to the help of every command with options."""
    for names, command in commands(group):
        if found := options(command):
            usual = [pair for pair in found.items() if pair[1].envvar is None and pair[0] != "file"]
            name, option = next(iter(usual), next(iter(found.items())))
            flag = max(option.opts, key=len)
            command.epilog = (
                f"Options that are not given are read from the environment ({flag} from {variable(names, option)}), "
                f"then from config.toml ({name.replace('_', '-')} in [{'.'.join(names)}]); see `tts-tui config`."
            )


def described(group: click.Group, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield lines on where the settings file is, what it can contain, and what is set. API keys are hidden.

    Raises:
        ConfigError: The file is invalid; raised after the lines that say where it is.
    """
    file = config_path()
    yield f"{file}{'' if file.exists() else ' (not there)'}"
    yield "Options that are not given are read from the environment, then from this file, then have their defaults."
    yield ""
    yield f"for all commands: {', '.join(SHARED)}"
    yield f"for the terminal UI: {', '.join(INTERFACE)} (`tts-tui keys` lists the names for [keymap])"
    yield "for one command, in its table: n = 32 in [solve], tokens = 100000 in [train-prm]"
    yield (
        "in the environment: TTS_TUI_SOLVE_N=32, TTS_TUI_TRAIN_PRM_TOKENS=100000; for all commands TTS_TUI_API_KEY, "
        "TTS_TUI_SGLANG_PYTHON, TTS_TUI_HOME, TTS_TUI_CONFIG, TTS_TUI_DEBUG"
    )
    defaults(group)
    for key, value in read_config().items():
        if isinstance(value, dict):
            yield from (f"set: [{key}] {name} = {_shown(name, one)}" for name, one in value.items())
        else:
            yield f"set: {key} = {_shown(key, value)}"
    for name in sorted(environment):
        if name.startswith(f"{PREFIX}_"):
            yield f"set: {name}={_shown(name, environment[name])}"


def _shown(name: str, value: Any) -> str:
    return "(hidden)" if _plain(name).casefold().endswith("api_key") else str(value)
