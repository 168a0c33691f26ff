"""One server over HTTP: JSON in, JSON or a stream of events out, and every failure as one sentence.

What goes wrong between two machines is told apart here once, so that no backend needs to know the HTTP client's errors.
The API key is sent, and stands in no message, log or recording.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from tts_tui.errors import (
    BackendBadResponse,
    BackendError,
    BackendOverloaded,
    BackendTimeout,
    BackendUnavailable,
    RequestRefused,
    UsageError,
    WrongServer,
)

API_KEY = "TTS_TUI_API_KEY"
"""Environment variable of the key, which is better kept off command lines."""

CONNECT_SECONDS = 10.0
STALL_SECONDS = 120.0
"""Most seconds between two pieces of an answer."""
MOST_SHOWN = 300


def check_url(url: str) -> str:
    """`url` without a slash at its end.

    Raises:
        UsageError: It is no address of a server.
    """
    example = "write it as http://HOST:PORT"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"the address of the server has no usable port: {example}") from None
    if parts.username or parts.password:
        raise UsageError(f"the address of the server holds a user or a password: put the key into {API_KEY} instead")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UsageError(f"{url!r} is no address of a server: {example}")
    if parts.query or parts.fragment:
        raise UsageError(f"{url!r} is more than the address of a server: {example}")
    return url.rstrip("/")


class Http:
    """One server.

    Args:
        url: Its address, checked.
        api_key: Sent as a bearer token; by default what the environment variable `API_KEY` holds.
        stall: Most seconds between two pieces of an answer.
        serves: What should be there, a policy or a prm: how messages say to start it.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, stall: float = STALL_SECONDS, serves: str = "policy"
    ) -> None:
        self.url = check_url(url)
        self.serves = serves
        self._key = api_key or os.environ.get(API_KEY) or ""
        self._stall = stall
        self._session: aiohttp.ClientSession | None = None

    def other(self, url: str) -> Http:
        """The same for another server, with the same key."""
        return Http(url, api_key=self._key, stall=self._stall, serves=self.serves)

    async def open(self) -> None:
        """Gets ready; connections are made as they are needed, and kept."""
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            try:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self._stall),
                )
            except ValueError:  # a line feed in the key, for instance
                raise UsageError(f"the API key holds characters that cannot be sent: check {API_KEY}") from None

    async def close(self) -> None:
        """Closes all connections. Safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, path: str) -> Any:
        """The JSON at `path`.

        Raises:
            BackendError: Of the kind that fits, with a sentence.
        """
        return await self._json("GET", path, None, {})

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """The JSON that answers `body`; None where the answer is empty."""
        return await self._json("POST", path, body, headers or {})

    async def text(self, path: str) -> str:
        """What is at `path`, as it is."""
        return (await self._read("GET", path, None, {})).decode(errors="replace")

    async def events(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> AsyncGenerator[bytes]:
        """The data of each server-sent event, up to and without `[DONE]`.

        Raises:
            BackendError: Of the kind that fits; also if the stream ends before `[DONE]`.
        """
        try:
            async with self._request("POST", path, body, headers or {}) as reply:
                await self._check(reply)
                rest = b""
                async for piece in reply.content.iter_any():
                    rest += piece
                    if b"\r" in rest:  # JSON holds none, so these end lines
                        rest = rest.replace(b"\r\n", b"\n")
                    *whole, rest = rest.split(b"\n\n")
                    for event in whole:
                        if not event.startswith(b"data:"):
                            continue  # a comment that keeps the connection open
                        data = event[5:].strip()
                        if data == b"[DONE]":
                            return
                        yield data
                if rest and not rest.startswith((b"data:", b":", b"event:")):
                    raise self._no_json(rest)
                raise BackendUnavailable(f"{self.url} ended its answer in the middle")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.explain(error) from error

    # -- inside ------------------------------------------------------------------------------------------------------

    def _request(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        if self._session is None:
            raise BackendError("the connection to the server is closed")
        data = None if body is None else msgspec.json.encode(body)
        kind = {} if body is None else {"Content-Type": "application/json"}
        # Redirections are told, not followed: problem and key go where the user said, and nowhere else.
        return self._session.request(
            method, self.url + path, data=data, headers={**kind, **headers}, allow_redirects=False
        )

    async def _read(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> bytes:
        try:
            async with self._request(method, path, body, headers) as reply:
                await self._check(reply)
                data: bytes = await reply.read()
                return data
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.explain(error) from error

    async def _json(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        data = await self._read(method, path, body, headers)
        if not data.strip():
            return None
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError:
            raise self._no_json(data) from None

    def _no_json(self, data: bytes) -> BackendError:
        if data.lstrip()[:1] == b"<":
            return WrongServer(
                f"{self.url} answers with a web page: another program is behind that address, or a proxy in between"
            )
        return BackendBadResponse(f"{self.url} sent an answer that is damaged or no JSON")

    async def _check(self, reply: aiohttp.ClientResponse) -> None:
        """Raises what a status that is no success means."""
        if reply.status < 300:
            return
        data = await reply.read()
        said = message_of(data)
        told = f": {said}" if said else ""
        told = self.without_key(told)
        if reply.status < 400:
            raise self._redirected(reply)
        if reply.status in (401, 403):
            what = "does not accept this API key" if self._key else f"wants an API key: set {API_KEY}"
            raise WrongServer(f"{self.url} {what}")
        if reply.status in (429, 503):
            raise BackendOverloaded(f"{self.url} is overloaded or still loading{told}", _retry_after(reply))
        if reply.status in (502, 504):
            raise BackendUnavailable(f"the proxy at {self.url} does not reach the server behind it{told}")
        if reply.status in (404, 405):
            raise RequestRefused(f"{self.url} knows no {reply.url.path}", reply.status)
        if data.lstrip()[:1] == b"<" and reply.status < 500:
            raise self._no_json(data)
        if reply.status in (400, 413, 422):
            raise RequestRefused(f"{self.url} refused the request{told}", reply.status)
        raise BackendBadResponse(f"{self.url} failed with status {reply.status}{told}")

    def without_key(self, text: str) -> str:
        """`text` without the API key: a server may repeat what it was sent."""
        return text.replace(self._key, "***") if self._key else text

    def _redirected(self, reply: aiohttp.ClientResponse) -> BackendError:
        target = urlsplit(reply.headers.get("Location", ""))
        if not target.hostname:
            return WrongServer(f"{self.url} sends its callers elsewhere: check the address")
        return WrongServer(
            f"{self.url} sends its callers to {target.scheme}://{target.netloc.rpartition('@')[2]}: name the server "
            "itself, or log in to the network if that is a log-in page"
        )

    def explain(self, error: BaseException) -> BackendError:
        """An error of the HTTP client, in a sentence."""
        host = urlsplit(self.url).hostname
        if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
            return WrongServer(
                f"the certificate of {self.url} is not trusted: SSL_CERT_FILE names a file with the authority to trust"
            )
        if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
            return WrongServer(f"{self.url} does not speak TLS: write http:// if it has none")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return BackendUnavailable(f"no host is called {host}: check the address {self.url}")
        if isinstance(error, aiohttp.ClientConnectorError):
            return BackendUnavailable(
                f"no server answers at {self.url}: start one with `tts-tui serve {self.serves} MODEL`, or check "
                "the address"
            )
        if isinstance(error, TimeoutError):
            return BackendTimeout(
                f"{self.url} has sent nothing for {self._stall:g} s: see its log, or stop and restart it"
            )
        if isinstance(error, aiohttp.ClientResponseError):  # no HTTP at all, or headers that make no sense
            return WrongServer(f"{self.url} does not answer in HTTP: check the address and the port")
        return BackendUnavailable(f"{self.url} broke the connection off")


def message_of(data: bytes) -> str:
    """What a server says of a failure, wherever in its JSON it says it; empty if it says nothing readable."""
    try:
        said = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return ""
    for key in ("error", "message", "detail", "msg"):
        while isinstance(said, dict) and key in said:
            said = said[key]
        if isinstance(said, list) and said:
            said = said[0]
    return " ".join(str(said).split())[:MOST_SHOWN] if isinstance(said, str) else ""


def _retry_after(reply: aiohttp.ClientResponse) -> float | None:
    """Seconds that the server asks to wait; a date, which is seldom used, counts as none."""
    try:
        return max(0.0, float(reply.headers.get("Retry-After", "")))
    except ValueError:
        return None
