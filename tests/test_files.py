"""Files that a user names: only regular files of bounded size are read; others are refused with a clear message."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tts_tui.cli import main
from tts_tui.errors import ConfigError, UsageError
from tts_tui.files import open_regular, read_regular, read_toml

ENDLESS = Path("/dev/zero")
needs_devices = pytest.mark.skipif(not ENDLESS.exists(), reason="this system has no /dev/zero")


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no FIFOs")
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    assert read_regular(path) == b"content"


def test_a_fifo_is_refused_without_waiting_for_a_writer(fifo: Path) -> None:
    with pytest.raises(UsageError, match="regular"):
        open_regular(fifo)


@needs_devices
def test_an_endless_device_is_refused() -> None:
    with pytest.raises(UsageError, match="regular"):
        open_regular(ENDLESS)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="folder"):
        open_regular(tmp_path)


def test_a_file_above_the_limit_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: uses no disk space
    with pytest.raises(UsageError, match="too large"):
        read_regular(path)


def test_toml_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("a=" + "[" * 200_000)
    with pytest.raises(ConfigError, match=r"deep\.toml"):
        read_toml(path, "the profile")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main.run(list(arguments))
    error = capsys.readouterr().err
    assert code in (2, 3), error
    assert error.startswith("tts-tui: ") and error.count("\n") == 1
    assert "unexpected" not in error and "Traceback" not in error
    return error


@pytest.mark.parametrize(
    "command",
    [
        ("replay", "{path}", "--display", "plain"),
        ("resume", "{path}"),
        ("compare", "{path}", "{path}"),
        ("export", "{path}", "out.html"),
        ("eval", "{path}", "--plan", "cot"),
        ("profile-prm", "{path}"),
    ],
)
@pytest.mark.parametrize("kind", ["fifo", "endless", "long"])
def test_commands_refuse_what_is_no_regular_file(
    command: tuple[str, ...], kind: str, fifo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = {"fifo": str(fifo), "endless": str(ENDLESS), "long": str(tmp_path / ("x" * 300))}[kind]
    if kind == "endless" and not ENDLESS.exists():
        pytest.skip("this system has no /dev/zero")
    refused(capsys, *(part.format(path=path) for part in command))


def test_a_report_of_a_path_that_is_too_long_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "report", "y" * 300)


@pytest.mark.parametrize(
    "line",
    [
        '{"event":"search_started","unknown":' + "[" * 200_000 + "]" * 200_000 + "}",
        '{"event":"search_started","unknown":' + '{"a":' * 200_000 + "1" + "}" * 200_000 + "}",
    ],
)
def test_a_recording_with_an_unknown_key_nested_without_end_is_refused(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(line + "\n")
    assert "run.jsonl" in refused(capsys, "replay", str(path), "--display", "plain")
