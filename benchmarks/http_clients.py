"""The cost of an HTTP client: `python -m benchmarks.http_clients [--streams N] [--events N] [--turns N] [--pause S]`.

Many concurrent server-sent-event streams, from a server in another process that repeats an event as SGLang 0.5.23 sends
it, either as fast as it can or with a pause between the events of a stream, as with a model. aiohttp, which this
package uses, and httpx read them in turn, with the same splitting and the same decoding, so that only the client
differs. backends/remote/http.py is aiohttp as used by the package.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing.connection import Connection

import aiohttp

from benchmarks.sglang.lag import lag
from tts_tui.backends.remote.http import Http
from tts_tui.backends.sglang.stream import EventReader, SSEPayload

META = (
    b'"meta_info":{"id":"3f0c2c5f5f8d4a1a8a6d0c9f7b1e2d3c","finish_reason":null,"prompt_tokens":57,'
    b'"weight_version":"default","num_retractions":0,"storage_prefetch_wait":0.0,"storage_staging_wait":0.0,'
    b'"queue_time":0.00045910100016044453,"reasoning_tokens":0,"completion_tokens":%d,"cached_tokens":56,'
    b'"weight_versions":[{"version":"default","start":0,"end":%d}],"cached_tokens_details":null,"dp_rank":null,'
    b'"e2e_latency":null,"request_received_ts":1795521039.4288566,"response_sent_to_client_ts":1795521039.8205276}'
)
EVENT = b'data: {"text":" divisors","output_ids":[%d],' + META + b"}\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"

Client = Callable[[str, int], Awaitable[int]]
"""A function from the address of the server and the number of streams to the number of received events."""


# -- the server --------------------------------------------------------------------------------------------------------


def serve(events: int, pause: float, tell: Connection) -> None:
    """Answer every request with `events` events, a chunk each, as SGLang's server does; send the port to `tell`."""
    asyncio.run(_serve(events, pause, tell))


async def _serve(events: int, pause: float, tell: Connection) -> None:
    chunks = [_chunk(EVENT % (300 + number, number, number)) for number in range(1, events + 1)]
    chunks.append(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                (length,) = (line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length))
                writer.write(HEAD)
                for chunk in chunks:
                    writer.write(chunk)
                    await writer.drain()
                    await asyncio.sleep(
                        pause
                    )  # lets the other streams run: their events come in turn, as those of a batch do
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    tell.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# -- the clients -------------------------------------------------------------------------------------------------------


async def read(pieces: AsyncIterator[bytes]) -> int:
    """Split and decode a stream, and return the number of events."""
    http, reader, rest, count = Http("http://server"), EventReader(""), b"", 0
    decoder = http.decoder(SSEPayload)
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n\n")
        for event in whole:
            data = event[5:].strip()
            if data != b"[DONE]":
                reader.read(http.event(data, decoder))
                count += 1
    return count


async def by_aiohttp(url: str, streams: int) -> int:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> int:
            async with session.post(f"{url}/generate", data=b"{}") as reply:
                return await read(reply.content.iter_any())

        return sum(await asyncio.gather(*(one() for _ in range(streams))))


async def by_httpx(url: str, streams: int) -> int:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=None) as session:

        async def one() -> int:
            async with session.stream("POST", f"{url}/generate", content=b"{}") as reply:
                return await read(reply.aiter_bytes())

        return sum(await asyncio.gather(*(one() for _ in range(streams))))


async def by_backend(url: str, streams: int) -> int:
    http = Http(url)
    await http.open()

    async def one() -> int:
        reader = EventReader(url)
        return sum([len(reader.read(wire).ids) async for wire in http.events("/generate", {}, SSEPayload)])

    try:
        return sum(await asyncio.gather(*(one() for _ in range(streams))))
    finally:
        await http.close()


# -- the comparison ----------------------------------------------------------------------------------------------------


async def measure(name: str, client: Client, url: str, streams: int, events: int) -> float:
    """Print a row, and return the CPU seconds for 10 000 events."""
    async with lag() as seen:
        wall, cpu = time.perf_counter(), time.process_time()
        count = await client(url, streams)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert count == streams * events, (count, streams * events)
    cost = cpu / count * 10_000
    print(
        f"{name:<22} {count:>8,} {wall:>7.2f} {cost:>9.3f} {seen.worst * 1000:>10.1f} ms {seen.own * 1000:>7.1f} ms",
        flush=True,
    )
    return cost


async def compare(url: str, streams: int, events: int, turns: int) -> None:
    """Run all clients in turn."""
    clients: dict[str, Client] = {"aiohttp": by_aiohttp, "httpx": by_httpx, "backends/remote/http.py": by_backend}
    print(f"{'':<22} {'events':>8} {'wall s':>7} {'CPU s / 10 000':>9} {'worst lag':>9} {'of own CPU':>10}")
    for client in clients.values():
        await client(url, 8)  # warms up imports and connections
    costs: dict[str, list[float]] = {name: [] for name in clients}
    for turn in range(turns):
        names = list(clients) if turn % 2 else list(reversed(clients))
        for name in names:
            costs[name].append(await measure(name, clients[name], url, streams, events))
    for name in ("httpx", "backends/remote/http.py"):
        ratios = [mine / base for mine, base in zip(costs[name], costs["aiohttp"], strict=True)]
        print(f"CPU of {name} / aiohttp: median {statistics.median(ratios):.2f}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--events", type=int, default=100, help="for each stream")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between the events of a stream")
    args = parser.parse_args()
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise SystemExit("httpx is needed to compare with it: pip install 'tts-tui[bench]'") from None
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    server = context.Process(target=serve, args=(args.events, args.pause, theirs), daemon=True)
    server.start()
    try:
        asyncio.run(compare(f"http://127.0.0.1:{mine.recv()}", args.streams, args.events, args.turns))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
