"""HTTP client for one server: JSON in, typed values or a stream of them out, and every failure as one sentence.

Network failures are classified here, in one place, so that no backend needs to know the HTTP client's errors. The API
key is sent, but never appears in a message, log or recording: replies are decoded into the types of
`tts_tui.backends.remote.replies`, whose strings are `ServerText`, and no error has a cause that may quote what a server
sent.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from tts_tui.backends.remote.sse import EventParser
from tts_tui.backends.remote.untrusted import Code, Failure, Matched, Redactor, ServerText, verbatim
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
"""Environment variable that holds the API key, so that the key need not appear on command lines."""

CONNECT_SECONDS = 10.0
STALL_SECONDS = 120.0
"""Maximum seconds until a reply is complete, and between two events of a stream."""
MOST_BYTES = 64 * 2**20
"""Maximum size of an event, and of a reply that is not a stream. An event that repeats 32 000 tokens and their text
takes less than one MB, and 128 hidden states of 8192 numbers take 20 MB."""
_DONE = b"[DONE]"
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Errors raised by a decoder: RecursionError where values are nested thousands deep."""

T = TypeVar("T")


class UnexpectedReply(BackendBadResponse):
    """An error raised when a reply is valid JSON, but not of the requested type."""


def check_url(url: str) -> str:
    """Return `url` without a trailing slash.

    Raises:
        UsageError: `url` is not the address of a server.
    """
    example = "write it as http://HOST:PORT"
    if "@" in url:  # checked before parsing, because a parse error would quote the address
        raise UsageError(f"the address of the server holds a user or a password: put the key into {API_KEY} instead")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UsageError(f"the address of the server has no usable port: {example}") from None
    if parts.query or parts.fragment:
        raise UsageError(f"the address of the server ends with a query or a fragment, which it must not: {example}")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UsageError(f"{url!r} is no address of a server: {example}")
    return url.rstrip("/")


class Http:
    """An HTTP client for one server.

    Args:
        url: The server's address; checked by `check_url`.
        api_key: The key that is sent as a bearer token; by default the value of the environment variable that
            `API_KEY` names.
        stall: Maximum seconds until a reply is complete, and between two events of a stream.
        serves: The kind of model that is expected, "policy" or "prm"; error messages use it to say how to start one.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, stall: float = STALL_SECONDS, serves: str = "policy"
    ) -> None:
        self.url = check_url(url)
        self.serves = serves
        self._key = api_key or os.environ.get(API_KEY) or ""
        self._stall = stall
        self._session: aiohttp.ClientSession | None = None
        self._redactor = Redactor(self._key)
        self._decoders: dict[Any, msgspec.json.Decoder[Any]] = {}

    def other(self, url: str) -> Http:
        """Return a client for the server at `url` with the same key and settings."""
        return Http(url, api_key=self._key, stall=self._stall, serves=self.serves)

    async def open(self) -> None:
        """Open the client session; connections are made on demand and kept alive.

        Raises:
            UsageError: The API key holds characters that cannot be sent.
        """
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            try:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                    headers=headers,
                    # aiohttp can only time reads from the socket: a read that waits behind a malformed chunk, for
                    # which aiohttp closes the connection, never ends.
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
                )
            except ValueError:  # a line feed in the key, for instance
                raise UsageError(f"the API key holds characters that cannot be sent: check {API_KEY}") from None

    async def close(self) -> None:
        """Close all connections. Safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, path: str, kind: type[T]) -> T:
        """Return the JSON at `path`.

        Args:
            path: The path on the server.
            kind: The type to decode into; its strings are `ServerText`, except text that a model generated.

        Raises:
            BackendError: The request failed; the subclass and message say how. `UnexpectedReply` if the JSON is not
                of type `kind`.
        """
        return self.decode(await self.read("GET", path), kind)

    async def post(self, path: str, body: Any, kind: type[T], headers: Mapping[str, str] | None = None) -> T:
        """Post `body` to `path`, and return the JSON reply as `get` does.

        Args:
            path: The path on the server.
            body: The value that is sent as JSON.
            kind: The type to decode into.
            headers: Additional headers.

        Raises:
            BackendError: The request failed; the subclass and message say how. `UnexpectedReply` if the JSON is not
                of type `kind`.
        """
        return self.decode(await self.read("POST", path, body, headers), kind)

    async def read(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
        """Return the body of a reply, undecoded.

        Raises:
            BackendError: The request failed; the subclass and message say how.
        """
        try:
            async with (
                asyncio.timeout(self._stall),
                self._request(method, path, body, headers or {}) as reply,
            ):
                await self._check(reply)
                return await self._whole(reply)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.explain(error) from _cause(error)

    async def events(
        self, path: str, body: Any, kind: type[T], headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[T]:
        """Yield each server-sent event up to, but not including, `[DONE]`.

        Raises:
            BackendError: The request failed, an event is not of type `kind`, or the stream ended before `[DONE]`; the
                subclass and message say which.
        """
        parser, decoder, now = EventParser(), self.decoder(kind), asyncio.get_running_loop().time
        deadline = now() + self._stall
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout_at(deadline):
                    reply = await stack.enter_async_context(self._request("POST", path, body, headers or {}))
                    await self._check(reply)
                while True:
                    async with asyncio.timeout_at(deadline):
                        piece = await reply.content.readany()
                    if not piece:
                        break
                    for data in parser.feed(piece):
                        data = data.strip()
                        if data == _DONE:
                            return
                        if data:  # some proxies keep a connection open with empty events
                            yield self.event(data, decoder)
                            deadline = now() + self._stall
                    if parser.pending > MOST_BYTES:
                        raise BackendBadResponse(f"{self.url} sent an event of more than {MOST_BYTES >> 20} MB")
                if (parser.close() or b"").strip() == _DONE:
                    return
                if parser.stray:
                    raise self._no_json(parser.stray)
                raise BackendUnavailable(f"{self.url} ended its answer in the middle")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.explain(error) from _cause(error)

    def decode(self, data: bytes, kind: type[T]) -> T:
        """Decode `data` from JSON as `get` does; empty data counts as null.

        Raises:
            BackendError: `data` is damaged or not JSON. `UnexpectedReply` if the JSON is not of type `kind`.
        """
        try:
            return self.decoder(kind).decode(data if data.strip() else b"null")
        except msgspec.ValidationError:  # its message may quote the server
            raise UnexpectedReply(f"{self.url} sent an answer that makes no sense") from None
        except _UNREADABLE:
            raise self._no_json(data) from None

    def decoder(self, kind: type[T]) -> msgspec.json.Decoder[T]:
        """Return the cached decoder for replies of type `kind`, whose texts redact the API key."""
        decoder = self._decoders.get(kind)
        if decoder is None:
            decoder = self._decoders[kind] = msgspec.json.Decoder(kind, dec_hook=self._custom)
        return decoder

    def event(self, data: bytes, decoder: msgspec.json.Decoder[T]) -> T:
        """Return the event decoded from `data`.

        Raises:
            BackendBadResponse: `decoder` cannot decode it.
        """
        try:
            return decoder.decode(data)
        except _UNREADABLE:
            raise BackendBadResponse(f"{self.url} sent an event that is damaged") from None

    # -- inside ------------------------------------------------------------------------------------------------------

    def _request(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        if self._session is None:
            raise BackendError("the connection to the server is closed")
        data = None if body is None else msgspec.json.encode(body, enc_hook=verbatim)
        kind = {} if body is None else {"Content-Type": "application/json"}
        # Redirects are reported, not followed: problem and key go only to the server that the user named.
        return self._session.request(
            method, self.url + path, data=data, headers={**kind, **headers}, allow_redirects=False
        )

    def _custom(self, kind: type, value: Any) -> Any:
        """Convert `value` to the custom type `kind`; called by the decoder."""
        if kind is ServerText:
            return ServerText(value, self._redactor)
        if kind is Failure:
            return Failure(value, self._redactor)
        if kind is Matched:
            return Matched(value, self._redactor)
        if kind is Code:
            return Code(value if isinstance(value, int) else 0)
        raise NotImplementedError(kind)

    def _no_json(self, data: bytes) -> BackendError:
        if data.lstrip()[:1] == b"<":
            return WrongServer(
                f"{self.url} answers with a web page: another program is behind that address, or a proxy in between"
            )
        return BackendBadResponse(f"{self.url} sent an answer that is damaged or no JSON")

    async def _whole(self, reply: aiohttp.ClientResponse) -> bytes:
        """Return the body of a reply that is not a stream.

        Raises:
            BackendBadResponse: The body is larger than `MOST_BYTES`.
        """
        data = bytearray()
        async for piece in reply.content.iter_any():
            data += piece
            if len(data) > MOST_BYTES:
                raise BackendBadResponse(f"{self.url} sent an answer of more than {MOST_BYTES >> 20} MB")
        return bytes(data)

    async def _check(self, reply: aiohttp.ClientResponse) -> None:
        """Raise the error that the status of a reply stands for, if it is not a success."""
        if reply.status < 300:
            return
        data = await self._whole(reply)
        said = self._said(data)
        told = f": {said}" if said else ""
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

    def _said(self, data: bytes) -> ServerText:
        """Return the failure message in a reply; empty if there is none that can be read."""
        try:
            return self.decoder(Failure).decode(data).text
        except _UNREADABLE:
            return ServerText("", self._redactor)

    def _redirected(self, reply: aiohttp.ClientResponse) -> BackendError:
        try:
            target = urlsplit(reply.headers.get("Location", ""))
            host = target.hostname and f"{target.scheme}://{target.netloc.rpartition('@')[2]}"
        except ValueError:
            host = None
        if not host:
            return WrongServer(f"{self.url} sends its callers elsewhere: check the address")
        return WrongServer(
            f"{self.url} sends its callers to {ServerText(host, self._redactor)}: name the server itself, or log in to "
            "the network if that is a log-in page"
        )

    def explain(self, error: BaseException) -> BackendError:
        """Convert an error of the HTTP client to a `BackendError` with a message for users."""
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
        if isinstance(error, aiohttp.ClientResponseError):  # not HTTP at all, or invalid headers
            return WrongServer(f"{self.url} does not answer in HTTP: check the address and the port")
        return BackendUnavailable(f"{self.url} broke the connection off")


def _cause(error: BaseException) -> BaseException | None:
    """Return `error` as a cause, or None if it may quote what a server sent: tracebacks show causes."""
    return error if isinstance(error, OSError) else None


def _retry_after(reply: aiohttp.ClientResponse) -> float | None:
    """Return the seconds that the server asks to wait, or None; a date, which is rarely used, counts as None."""
    try:
        return max(0.0, float(reply.headers.get("Retry-After", "")))
    except ValueError:
        return None
