"""The terminal UI in a browser: a small server that starts a separate session for every visitor.

Built on textual-serve, with these additions: a one-line error if the server cannot start, a page that makes no requests
to other machines, sessions that end with their visitor, and protection against pages of other sites that the visitor
has open.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import html
import ipaddress
import logging
import os
import re
import secrets
import shlex
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

from tts_tui.displays.session import hear
from tts_tui.errors import UsageError
from tts_tui.ui import recordings

PLACES = 16
"""Default number of simultaneous sessions. Each takes some 35 MB of memory, or 435 MB with the embedded model."""
PATIENCE = 6.0
"""Seconds that a session has to stop its search and write its last events when its visitor or the server leaves."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tts-tui</title>
<link rel="icon" href="data:,">
<link rel="preload" as="font" type="font/ttf" crossorigin href="static/fonts/RobotoMono-VariableFont_wght.ttf">
<link rel="stylesheet" href="static/css/xterm.css">
<style>
@font-face {{ font-family: "Roboto Mono"; font-weight: 100 700;
  src: url("static/fonts/RobotoMono-VariableFont_wght.ttf"); }}
@font-face {{ font-family: "Roboto Mono"; font-weight: 100 700; font-style: italic;
  src: url("static/fonts/RobotoMono-Italic-VariableFont_wght.ttf"); }}
body {{ background: #121212; color: #e0e0e0; font: 16px "Roboto Mono", monospace; overflow: hidden; }}
.over {{ position: absolute; inset: 0; z-index: 9; display: flex; align-items: center; justify-content: center;
  background: #121212; }}
.over a {{ color: inherit; margin-left: 1em; }}
#closed, body.-first-byte #opening, body.-closed #opening {{ display: none; }}
body.-closed #closed {{ display: flex; }}
</style>
<script src="static/js/textual.js"></script>
<script nonce="{nonce}">
// Keys count without a click: from the moment that the line is open, since focus is told to the app.
addEventListener("load", () => new MutationObserver((_, waiting) => {{
  if (!document.body.classList.contains("-first-byte")) return;
  waiting.disconnect();
  document.querySelector(".xterm-helper-textarea").focus();
}}).observe(document.body, {{attributes: true, attributeFilter: ["class"]}}));
</script></head>
<body>
<div id="opening" class="over" role="status">tts-tui is starting …</div>
<div id="closed" class="over" role="status">This session has ended.<a href="">Begin another one</a></div>
<div id="terminal" class="textual-terminal" data-session-websocket-url="{socket}" data-font-size="{size}"></div>
</body></html>
"""
_FULL = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tts-tui</title><link rel="icon" href="data:,">
<meta http-equiv="refresh" content="{seconds}">
<style>
body {{ background: #121212; color: #e0e0e0; font: 16px monospace; display: flex; align-items: center;
  justify-content: center; height: 100vh; margin: 0; text-align: center; }}
</style></head>
<body><p role="status">All {places} sessions of this server are taken.<br>This page tries again by itself.</p></body>
</html>
"""
_RETRY = 5
"""Seconds after which the page that reports a full server reloads."""
_COOKIE = "tts-tui-visitor"
_COOKIE_AGE = 30 * 86_400
_POLICY = (  # whatever the page's scripts try: no requests to any other machine
    "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; script-src 'self' 'nonce-{nonce}'; "
    "connect-src 'self' {line}; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_log = logging.getLogger("textual-serve")


class Session(AppService):
    """The process behind one visitor. It ends with the visitor, and is killed if it does not.

    It also ends with the server, however the server ends, because its standard input is closed.

    Args:
        command: The command that starts the app.
        environment: Additional environment variables.
        settings: Further arguments of `AppService`.
    """

    def __init__(self, command: str, environment: Mapping[str, str], **settings: Any) -> None:
        super().__init__(command, **settings)
        self._environment = environment

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        return {**super()._build_environment(width, height), **self._environment}

    async def run(self) -> None:
        """Forward the app's output until it ends."""
        process = self._process
        assert process is not None and process.stdout is not None
        try:
            await super().run()
            while await process.stdout.read(65536):
                pass  # not visible any more, but without a reader the app would wait and never end
            await process.wait()
        finally:
            self.kill()
            with contextlib.suppress(ConnectionError, RuntimeError):
                await self.remote_close()

    async def stop(self) -> None:
        """Ask the app to exit, and wait for a limited time."""
        last = asyncio.get_running_loop().call_later(PATIENCE, self.kill)
        try:
            await super().stop()
            if self._process is not None:
                await self._process.wait()
        finally:
            last.cancel()
            self.kill()

    def kill(self) -> None:
        """Kill the process, if it is running."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()


class BrowserServer(Server):
    """A server of the app with given command-line arguments.

    Args:
        command: The command that starts the app.
        host, port: The address to listen on; port 0 takes a free one.
        places: Maximum number of simultaneous sessions.
        shared: Whether all visitors share the recordings of this user. Otherwise every browser has a folder of its own,
            identified by a cookie.
    """

    def __init__(
        self, command: Sequence[str], host: str, port: int, *, places: int = PLACES, shared: bool = False
    ) -> None:
        line = shlex.join(command)
        super().__init__(f"exec {line}" if os.name == "posix" else line, host=host, port=port, title="tts-tui")
        self.local = is_local(host)
        self.places, self.shared = places, shared
        self.ended = asyncio.Event()
        self.sessions: dict[web.WebSocketResponse, Session] = {}

    async def run(self, ready: Callable[[str], None]) -> None:
        """Serve until `ended` is set, then end all sessions; `ready` is called with the address.

        Raises:
            UsageError: The address cannot be listened on.
        """
        runner = web.AppRunner(await self._make_app(), access_log=None, shutdown_timeout=PATIENCE + 4)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, self.host, self.port).start()
            except (OSError, UnicodeError, OverflowError) as error:
                raise UsageError(_not_there(self.host, self.port, error)) from error
            ready(_url(self.host, runner.addresses[0][1]))
            await self.ended.wait()
        finally:
            await runner.cleanup()

    def end(self) -> None:
        """End the server and its sessions; the second time, immediately."""
        if self.ended.is_set():
            for session in self.sessions.values():
                session.kill()
        self.ended.set()

    async def on_startup(self, app: web.Application) -> None:
        """Suppress textual-serve's startup message: `ready` replaces it."""

    async def on_shutdown(self, app: web.Application) -> None:
        """Close the connection to every visitor, which ends their sessions."""
        lines = [line.close(code=1001, message=b"the server ends") for line in list(self.sessions)]
        await asyncio.gather(*lines, return_exceptions=True)  # a broken connection must not keep others open

    async def handle_index(self, request: web.Request) -> web.Response:
        """Return the page. Its URLs use the host that the visitor requested, so that it works under every name."""
        if not re.fullmatch(r"[\w.:\[\]-]+", request.host):
            raise web.HTTPBadRequest(text="that is no name of a machine")
        if self.full:
            said = _FULL.format(places=self.places, seconds=_RETRY)
            headers = {**_HEADERS, "Retry-After": str(_RETRY)}
            return web.Response(text=said, status=503, content_type="text/html", headers=headers)
        secure = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
        line = f"{'wss' if secure else 'ws'}://{request.host}/ws"
        size = min(max(to_int(request.query.get("fontsize", "16"), 16), 6), 64)
        nonce = secrets.token_urlsafe(16)
        page = _PAGE.format(socket=html.escape(line), size=size, nonce=nonce)
        headers = {**_HEADERS, "Content-Security-Policy": _POLICY.format(nonce=nonce, line=line)}
        reply = web.Response(text=page, content_type="text/html", headers=headers)
        visitor = _visitor(request)
        reply.set_cookie(
            _COOKIE, visitor, max_age=_COOKIE_AGE, path="/", httponly=True, secure=secure, samesite="Strict"
        )
        return reply

    @property
    def full(self) -> bool:
        """True if the maximum number of sessions is reached."""
        return len(self.sessions) >= self.places

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Handle the connection of one visitor for as long as it is open."""
        if not _own_page(request.headers, request.host, self.local):
            raise web.HTTPForbidden(text="only the page of this server itself may open a session")
        if self.full:
            raise web.HTTPServiceUnavailable(text="all sessions of this server are taken")
        line = web.WebSocketResponse(heartbeat=15, timeout=2.0)
        session = Session(
            self.command,
            {} if self.shared else {recordings.RUNS: str(recordings.folder() / "visitors" / _visitor(request))},
            write_bytes=line.send_bytes,
            write_str=line.send_str,
            close=line.close,
            download_manager=self.download_manager,
        )
        self.sessions[line] = session
        try:
            await line.prepare(request)
            width, height = (
                to_int(request.query.get(name, ""), usual) for name, usual in (("width", 80), ("height", 24))
            )
            await session.start(width, height)
            if not self.ended.is_set():
                await self._process_messages(line, session)
        except Exception as error:  # an invalid message from the page ends its session, not the server
            _log.error("a session ended: %s: %s", type(error).__name__, error)
        finally:
            try:
                await session.stop()
            finally:
                del self.sessions[line]
        return line


def _visitor(request: web.Request) -> str:
    """Return the id of a browser, from its cookie, or a new one."""
    name = request.cookies.get(_COOKIE, "")
    return name if re.fullmatch(r"[0-9a-f]{32}", name) else secrets.token_hex(16)


def _own_page(headers: Mapping[str, str], host: str, local: bool) -> bool:
    """Return whether a request may open a session.

    Browsers let any page open a WebSocket to any server, including this machine's own, and send the page's origin in
    `Origin`. A server for this machine alone also refuses foreign names that point to it, unless it is behind a proxy.
    """
    origin = headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return False
    proxied = any(name.lower().startswith("x-forwarded-") for name in headers)
    return not local or proxied or is_local(urlsplit(f"//{host}").hostname or "")


def is_local(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _not_there(host: str, port: int, error: Exception) -> str:
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"cannot serve on {host!r}: no such host; use 127.0.0.1 for this machine alone"
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: choose another with --port"
    if code == errno.EADDRNOTAVAIL:
        return f"cannot serve on {host}: it is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all of them"
    if code in (errno.EACCES, errno.EPERM):
        return f"port {port} may not be used: choose one from 1024 on with --port"
    return f"cannot serve on {host}, port {port}: {getattr(error, 'strerror', None) or error}"


def _url(host: str, port: int) -> str:
    if host in ("", "0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _OneLine(logging.Formatter):
    """A log format without tracebacks: invalid input from a visitor is not an error of the program."""

    def formatException(self, ei: object) -> str:
        return ""


def serve(
    host: str,
    port: int,
    arguments: Sequence[str],
    *,
    places: int = PLACES,
    shared: bool = False,
    command: Sequence[str] | None = None,
) -> int:
    """Serve the terminal UI to browsers until Ctrl-C, with a separate process for every visitor.

    Args:
        host, port: The address to listen on; port 0 takes a free one.
        arguments: The arguments of `tts-tui` for each session.
        places: Maximum number of simultaneous sessions.
        shared: Whether all visitors share the recordings of this user.
        command: The command that takes the arguments, by default this `tts-tui`.

    Returns:
        The exit code.

    Raises:
        UsageError: The address cannot be listened on.
    """
    if not is_local(host):
        print(
            f"Warning: whoever can reach {host or 'this machine'} can run searches and write recordings here, and "
            "there is no password. --host 127.0.0.1 is for this machine alone.",
            file=sys.stderr,
        )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("serve-ui: %(message)s"))
    _log.handlers, _log.propagate = [handler], False
    _log.setLevel(logging.ERROR)
    words = [*(command or (sys.executable, "-m", "tts_tui")), *arguments]
    with contextlib.redirect_stdout(sys.stderr):  # textual-serve prints the apps' standard error there
        asyncio.run(_until_signal(BrowserServer(words, host, port, places=places, shared=shared)))
    return 0


async def _until_signal(server: BrowserServer) -> None:
    hear(lambda _: server.end())
    await server.run(lambda url: print(f"Serving on {url} (Ctrl-C ends it)", file=sys.stderr, flush=True))
