"""Implementation of `tts-tui serve`: starts an SGLang server, shows its progress, and stops it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import monotonic
from types import TracebackType
from typing import Any, Self, TextIO

from tts_tui import profiles
from tts_tui.backends.local import download
from tts_tui.backends.sglang import launch as serving
from tts_tui.backends.sglang.process import ServerProcess, check_port
from tts_tui.displays import session, signals
from tts_tui.displays.base import is_terminal
from tts_tui.displays.progress import Progress
from tts_tui.errors import UsageError
from tts_tui.formatting import clock, one_line


def serve(kind: serving.Kind, model: str, given: Mapping[str, Any]) -> int:
    """Serve `model` until interrupted, checking everything that can be checked before starting.

    Args:
        kind: Whether the model is a policy or a reward model.
        model: `embedded`, a folder or a hub id.
        given: The options.

    Raises:
        TTSError: The model cannot be served, or the server ended.
    """
    serving.check_extra(given["extra"])
    check_key(given["api_key"])
    check_port(given["host"], given["port"])
    source = serving.resolve(kind, model)
    environment = serving.examine(given["python"], given["device"])
    launch = serving.command(
        kind,
        source,
        environment,
        host=given["host"],
        port=given["port"],
        context_length=given["context_length"],
        api_key=given["api_key"],
        allow_pickle=given.get("allow_pickle", False),
        return_hidden_states=given.get("return_hidden_states", False),
        extra=given["extra"],
    )
    if source == str(download.model_path()) and not download.is_present():
        with Progress(sys.stderr) as progress:
            download.pull(progress)
    where = f"SGLang {environment.sglang} on {'the CPU' if environment.device == 'cpu' else 'the GPU'}"
    server = ServerProcess(launch)
    try:
        server.start()
        with Starting(sys.stderr, f"starting {where}") as starting:
            server.wait_ready(starting)
        print(ready(kind, model, source, server), flush=True)
        server.wait()
    except KeyboardInterrupt:
        session.note("stopping the server; once more to end it by force")
        server.stop()
        session.note("the server is stopped")
        return signals.exit_code()
    finally:
        server.stop()
    return 0


def check_key(key: str | None) -> None:
    """Check that an API key can be sent in a header.

    Raises:
        UsageError: It contains spaces, control characters or non-ASCII characters, or is empty.
    """
    if key is not None and not (key.isascii() and key.isprintable() and key and " " not in key):
        raise UsageError("the API key must be of letters, digits and signs, without spaces")


def ready(kind: serving.Kind, model: str, source: str, server: ServerProcess) -> str:
    """Return the message for a server that is ready: its address, and a command to try."""
    lines = [f"{one_line(model)} is served at {server.url}", f"  its log: {server.launch.log}"]
    option = "--policy" if kind == "policy" else "--prm"
    name = ""
    if kind == "prm" and profiles.choose(None, model, serving.architecture(source)) is None:
        name = "@NAME"
    lines.append(f'  next:    tts-tui solve {option} sglang:{server.url}{name} "What is 7 + 8 - 6?"')
    if name:
        lines.append("  NAME says which PRM it is: see `tts-tui profiles`")
    if server.launch.api_key:
        lines.append(f"  clients need the same {serving.KEY_VARIABLE} in their environment")
    return "\n".join([*lines, "  Ctrl-C stops it"])


class Starting:
    """Show the progress of a start: one line that is rewritten on a terminal, else one line per stage.

    Args:
        out: Where to write.
        title: What is being started.
    """

    def __init__(self, out: TextIO, title: str) -> None:
        self._out, self._title = out, title
        self._drawn = is_terminal(out)
        self._began, self._shown = monotonic(), ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self("ready")
        if self._drawn and self._shown:
            self._out.write("\n")
            self._out.flush()

    def __call__(self, stage: str) -> None:
        """Show the stage."""
        passed = clock(monotonic() - self._began)
        text = f"tts-tui: {one_line(self._title)}: {stage} {passed}"
        if self._drawn:
            if text != self._shown:
                self._out.write(f"\r\x1b[K{text}")
                self._out.flush()
                self._shown = text
        elif stage != self._shown:
            self._out.write(f"{text}\n")
            self._out.flush()
            self._shown = stage
