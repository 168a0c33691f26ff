"""Shared configuration of all tests: no network, and no required test is skipped silently."""

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
    # Shells start background jobs with SIGINT ignored, which processes that tests start and interrupt would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("untimed", deadline=None)  # a busy machine must not cause failures
settings.load_profile("untimed")

SHARED = Path(__file__).resolve().parents[2] / "shared"
REQUIRED = frozenset(filter(None, os.environ.get("TTS_TUI_TESTS", "").split(",")))
"""Markers whose tests must run: `.ci/run` sets them; in a user's own clone there are none."""

_left_out: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need data, tokenizers or servers that are not available."""
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
    """Record skipped tests that are required here; pytest calls this in the process that collects the results."""
    if report.skipped and REQUIRED & report.keywords.keys():
        _left_out.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a required test was skipped."""
    if _left_out and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the required tests that were skipped."""
    for test in _left_out:
        terminalreporter.write_line(f"SKIPPED, BUT MUST RUN HERE: {test}", red=True)


@pytest.fixture
def shared() -> Path:
    """Return the folder of larger data; only for tests that are marked `shared`."""
    return SHARED


@pytest.fixture(scope="session")
def sglang_python() -> str:
    """Return a Python that has SGLang; this fixture and its dependents are only for tests that are marked `sglang`."""
    if not servers.PYTHON:
        pytest.skip(f"{servers.PYTHON_VARIABLE} names no Python that has SGLang")
    return servers.PYTHON


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a random model of two layers with the embedded model's tokenizer."""
    return servers.make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_server(sglang_python: str, tiny_model: Path) -> Iterator[servers.Server]:
    """Start a server of the random model, which all tests share and must leave running."""
    with servers.Server.start(tiny_model) as server:
        yield server


@pytest.fixture(scope="session")
def smollm2_server(sglang_python: str) -> Iterator[servers.Server]:
    """Start a server of the embedded model, which all tests share and must leave running."""
    with servers.Server.start(servers.download.pull()) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_prm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Yield a maker of random PRMs, one per kind of `tiny_prms`; only for tests that are marked `tokenizers`."""
    root = tmp_path_factory.mktemp("prms")

    def folder(kind: str) -> Path:
        return root / kind if (root / kind).exists() else tiny_prms.make(kind, root / kind)

    yield folder
    shutil.rmtree(root)  # 60 MB each, and pytest would keep them for three runs


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Isolate tests from options in the user's environment and from profiles measured on this machine."""
    monkeypatch.setattr(user, "folder", lambda: Path(os.devnull) / "profiles")
    for name in list(os.environ):
        if name.startswith("TTS_TUI_") and name not in ("TTS_TUI_HOME", "TTS_TUI_TESTS"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TTS_TUI_CONFIG", os.devnull)
