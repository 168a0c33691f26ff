"""What all tests share: no network, and no test left out silently where it must run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs deaf to Ctrl-C, and processes that tests start and interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"
REQUIRED = frozenset(filter(None, os.environ.get("TTS_TUI_TESTS", "").split(",")))
"""Markers whose tests must run: `.ci/run` names them, a user's own clone has none."""

_left_out: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests on data that is not there."""
    absent = pytest.mark.skip(reason="no ../shared beside the checkout")
    for item in items:
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(absent)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remembers skipped tests that must not be skipped here; called where the results come together."""
    if report.skipped and REQUIRED & report.keywords.keys():
        _left_out.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run if one of them was."""
    if _left_out and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which."""
    for test in _left_out:
        terminalreporter.write_line(f"SKIPPED, BUT MUST RUN HERE: {test}", red=True)


@pytest.fixture
def shared() -> Path:
    """The folder of larger data; only for tests that are marked `shared`."""
    return SHARED


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that the user sets by environment do not reach the tests."""
    for name in list(os.environ):
        if name.startswith("TTS_TUI_") and name not in ("TTS_TUI_HOME", "TTS_TUI_TESTS"):
            monkeypatch.delenv(name)
