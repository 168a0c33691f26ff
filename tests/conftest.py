"""What all tests share: no network, and no test left out silently where it must run."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import real_tokenizers, servers, tiny_prms
from tts_tui.profiles import user

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs deaf to Ctrl-C, and processes that tests start and interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parents[2] / "shared"
REQUIRED = frozenset(filter(None, os.environ.get("TTS_TUI_TESTS", "").split(",")))
"""Markers whose tests must run: `.ci/run` names them, a user's own clone has none."""

_left_out: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips tests on data, tokenizers or servers that are not there."""
    absent = pytest.mark.skip(reason="no ../shared beside the checkout")
    alone = pytest.mark.skip(reason=f"{servers.PYTHON_VARIABLE} names no Python that has SGLang (make server-tests)")
    without = pytest.mark.skip(reason="no real tokenizers in build/tokenizers (make tokenizers)")
    for item in items:
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(absent)
        if item.get_closest_marker("sglang") and not servers.PYTHON:
            item.add_marker(alone)
        if item.get_closest_marker("tokenizers") and not real_tokenizers.there():
            item.add_marker(without)


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


@pytest.fixture(scope="session")
def sglang_python() -> str:
    """A Python that has SGLang; only for tests that are marked `sglang`, as all fixtures that use it."""
    if not servers.PYTHON:
        pytest.skip(f"{servers.PYTHON_VARIABLE} names no Python that has SGLang")
    return servers.PYTHON


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers with the embedded model's tokenizer."""
    return servers.make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_server(sglang_python: str, tiny_model: Path) -> Iterator[servers.Server]:
    """A server of the random model, one for all tests: leave it running."""
    with servers.Server.start(tiny_model) as server:
        yield server


@pytest.fixture(scope="session")
def smollm2_server(sglang_python: str) -> Iterator[servers.Server]:
    """A server of the embedded model, one for all tests: leave it running."""
    with servers.Server.start(servers.download.pull()) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_prm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Makes a random PRM of a kind of `tiny_prms`, once; only for tests that are marked `tokenizers`."""
    root = tmp_path_factory.mktemp("prms")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).exists() else tiny_prms.make(kind, root / kind)

    yield folder
    shutil.rmtree(root)  # 60 MB each, of which pytest would keep three runs


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that the user sets by environment, and profiles that were measured here, do not reach the tests."""
    monkeypatch.setattr(user, "folder", lambda: Path(os.devnull) / "profiles")
    for name in list(os.environ):
        if name.startswith("TTS_TUI_") and name not in ("TTS_TUI_HOME", "TTS_TUI_TESTS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TTS_TUI_CONFIG", os.devnull)
