"""Reading of files that a user names: regular files of a bounded size, never a device or a pipe."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO

from platformdirs import user_config_path

from tts_tui.errors import ConfigError, UsageError

CONFIG_VARIABLE = "TTS_TUI_CONFIG"
"""Name of the environment variable with the path of the settings file."""
SMALL_FILE = 16 << 20
"""Maximum size of settings, profiles and calibrations, in bytes."""


def open_regular(path: str | os.PathLike[str], *, limit: int | None = None) -> BinaryIO:
    """Open a regular file for reading.

    A device such as `/dev/zero` never ends, and opening a FIFO waits for a writer: both are refused. The null device
    reads as an empty file.

    Args:
        path: The file.
        limit: Maximum size in bytes; None for no limit.

    Raises:
        OSError: The file cannot be opened.
        UsageError: The file is not a regular file, or is larger than `limit`.
    """
    # Without O_NONBLOCK, opening a FIFO blocks before its type can be checked.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(handle, "rb") if not _is_directory(handle) else None
    if file is None:
        os.close(handle)
        raise IsADirectoryError(21, "it is a folder", os.fspath(path))
    status = os.fstat(handle)
    problem = ""
    if not (stat.S_ISREG(status.st_mode) or os.path.samestat(status, os.stat(os.devnull))):
        problem = f"{path} is not a regular file: copy its content to a file first"
    elif limit is not None and status.st_size > limit:
        problem = f"{path} is too large: it has {status.st_size:,} bytes, and at most {limit:,} are read"
    if problem:
        file.close()
        raise UsageError(problem)
    return file


def _is_directory(handle: int) -> bool:
    return stat.S_ISDIR(os.fstat(handle).st_mode)


def read_regular(path: str | os.PathLike[str], *, limit: int = SMALL_FILE) -> bytes:
    """Return the content of a regular file of at most `limit` bytes.

    Raises:
        OSError: The file cannot be read.
        UsageError: The file is not a regular file, or is too large.
    """
    with open_regular(path, limit=limit) as file:
        return file.read(limit)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the content of a TOML file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        what: Description of the file for messages, such as "the profile".

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: The file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(read_regular(path).decode("utf-8-sig"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror or error}") from error
    except UsageError as error:
        raise ConfigError(f"cannot read {what}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{what} {path} is nested too deeply: fix or remove it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} is not TOML ({error}): fix or remove it") from None


def config_path() -> Path:
    """Return the path of the settings file.

    It is `TTS_TUI_CONFIG` if that is set, and otherwise `config.toml` in the user's configuration folder.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named).expanduser() if named else user_config_path("tts-tui") / "config.toml"


def read_config() -> dict[str, Any]:
    """Return the content of the settings file; empty if there is no file.

    Raises:
        ConfigError: The file cannot be read, or is not TOML.
    """
    file = config_path()
    try:
        return read_toml(file, "the settings")
    except FileNotFoundError:
        return {}
