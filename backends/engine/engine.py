"""Continuous batching for one in-process model: many requests, one forward pass at a time, no token run twice.

One worker thread owns the model. It repeats: accept new requests, sample a token for every row that is ready, deliver
the tokens, run all tokens that have not yet passed through the model (sampled ones and chunks of prompts together).
Sampled tokens and prompt tokens differ only in their origin: a row samples once all of its tokens have been run.

A row whose answer or step has ended stays for one more forward pass, so that its last token is cached too: a request
that continues or scores that text finds all of it computed.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import torch

from tts_tui.backends.engine.attention import Sequence_, tree_order
from tts_tui.backends.engine.jobs import Decode, GenerateJob, HiddenState, HiddenStateJob, Job, Stats
from tts_tui.backends.engine.model import CausalModel
from tts_tui.backends.engine.sampling import draw
from tts_tui.backends.engine.scheduler import Scheduler
from tts_tui.backends.engine.threads import Threads, cores
from tts_tui.errors import BackendError, ContextExceeded
from tts_tui.protocols import Chunk, StepRequest, Usage

log = logging.getLogger(__name__)

MOST_ROWS = {"cpu": 64, "cuda": 256}
"""The default maximum of concurrent rows by device type; once the machine is saturated, more rows only slow it."""

CHUNK = {"cpu": 256, "cuda": 2048}
"""The default maximum of prompt tokens in one forward pass, by device type."""


class Engine:
    """A server of one `CausalModel` for any number of asyncio tasks and event loops.

    Args:
        model: The model; from now on only the engine's thread may use it.
        decode: A function that decodes ids to text and skips special tokens.
        eos: The ids that end an answer.
        rows: The most rows in a batch.
        chunk: The most prompt tokens in one forward pass.
        threads: The number of threads for computation on a CPU; None uses all cores or one, whichever is currently
            faster.
    """

    def __init__(
        self,
        model: CausalModel,
        decode: Decode,
        eos: frozenset[int],
        *,
        rows: int | None = None,
        chunk: int | None = None,
        threads: int | None = None,
    ) -> None:
        kind = model.device.type
        self.context = min(model.context, model.slots)
        self._model = model
        self._decode = decode
        self._eos = eos
        self._threads = Threads([threads] if threads else sorted({cores(), 1}, reverse=True)) if kind == "cpu" else None
        self._scheduler: Scheduler[Job] = Scheduler(
            model.slots,
            rows=rows or MOST_ROWS.get(kind, 64),
            chunk=chunk or CHUNK.get(kind, 256),
        )
        self._inbox: deque[tuple[str, Any]] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._dead: str | None = None
        self._out: list[tuple[Job, Any]] = []
        self._forwards = self._computed = self._sampled = 0
        self._stats = Stats(0, 0, 0, model.slots)
        self._thread = threading.Thread(target=self._work, name="tts-engine", daemon=True)
        self._thread.start()
        # A thread that is inside torch during interpreter shutdown crashes the process.
        atexit.register(self._at_exit)

    async def generate(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
        """Sample one continuation; see `Policy.stream`."""
        self._check(request.ids, 1)
        job = GenerateJob(request, self._decode)
        self._send("add", job)
        try:
            while True:
                item = await job.results.get()
                if not isinstance(item, Chunk):
                    raise BackendError(item)
                yield item
                if item.finish is not None:
                    return
        finally:
            self._send("drop", job, quiet=True)
            unread = job.unread()
            if request.late is not None and unread != Usage():
                request.late(unread)

    async def states(self, prefixes: Sequence[tuple[int, ...]], last: Sequence[int] | None = None) -> list[HiddenState]:
        """Return the model's hidden states at the end of each prefix, in order.

        Tokens in the pool are not run again. These requests take precedence over queued ones and never wait for a
        batch to end.

        Args:
            prefixes: The token ids of each prefix.
            last: The number of last tokens whose states are returned, for each prefix; by default 1.

        Raises:
            ContextExceeded: A prefix is longer than the context.
            BackendError: The engine failed or was closed.
        """
        for ids in prefixes:
            self._check(ids, 0)
        jobs = [HiddenStateJob(ids, n) for ids, n in zip(prefixes, last or [1] * len(prefixes), strict=True)]
        try:
            for job in jobs:
                self._send("add", job)
            results = [await job.results.get() for job in jobs]
        finally:
            for job in jobs:
                self._send("drop", job, quiet=True)
        for result in results:
            if not isinstance(result, HiddenState):
                raise BackendError(result)
        return results

    @property
    def network(self) -> Any:
        """The transformers model; only the engine's thread runs it."""
        return self._model.model

    async def settle(self) -> Stats:
        """Wait until the worker has accepted all earlier requests; return the statistics at that point."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        self._send("call", lambda: loop.call_soon_threadsafe(done.set))
        await done.wait()
        return self._stats

    def stats(self) -> Stats:
        """Return statistics as of the last forward pass."""
        return self._stats

    async def close(self) -> None:
        """Stop the thread after its current forward pass; pending requests raise `BackendError`."""
        self.stop()
        await asyncio.to_thread(self._thread.join)

    def stop(self) -> None:
        """Ask the thread to stop, without waiting for it."""
        with self._lock:
            self._dead = self._dead or "the engine was closed"
        self._wake.set()

    def _at_exit(self) -> None:
        self.stop()
        self._thread.join()

    def _check(self, ids: Sequence[int], room: int) -> None:
        if len(ids) + room > self.context:
            what = "context" if self.context == self._model.context else "key-value pool (see kv_tokens)"
            raise ContextExceeded(
                f"{len(ids)} tokens leave no room in the {what} of {self.context} tokens: use a shorter prompt or"
                " fewer, shorter steps"
            )
        if not ids:
            raise BackendError("there is nothing to go on from: the list of token ids is empty")
        if min(ids) < 0 or max(ids) >= self._model.config.vocab_size:
            raise BackendError(f"token ids must be in [0, {self._model.config.vocab_size})")

    def _send(self, what: str, payload: Any, *, quiet: bool = False) -> None:
        with self._lock:
            if self._dead is None:
                self._inbox.append((what, payload))
            elif not quiet:
                raise BackendError(self._dead)
        self._wake.set()

    # All methods below run in the worker thread.

    def _work(self) -> None:
        try:
            with torch.inference_mode():
                while self._dead is None:
                    self._round()
        except BaseException as error:
            log.exception("the engine failed")
            self._die(f"the engine failed: {type(error).__name__}: {error}")
        else:
            self._die("the engine was closed")
        atexit.unregister(self._at_exit)  # the registration keeps the model alive

    def _round(self) -> None:
        self._take_up()
        self._scheduler.admit()
        self._sample()
        self._hand_out()
        if batch := self._scheduler.batch():
            self._forward(batch)
        elif not self._scheduler.queue:
            self._note()
            self._wake.wait()

    def _take_up(self) -> None:
        self._wake.clear()
        calls = []
        while self._inbox:
            what, payload = self._inbox.popleft()
            if what == "add":
                self._scheduler.add(payload)
            elif what == "drop" and not payload.ended:
                payload.ended = True
                self._scheduler.drop(payload)
            elif what == "call":
                calls.append(payload)
        self._note()
        for call in calls:
            call()

    def _sample(self) -> None:
        """Sample one token, or read the states, for every row all of whose tokens have passed through the model."""
        ready = [row for row in self._scheduler.rows if row.ready]
        reads = [row for row in ready if isinstance(row, HiddenStateJob)]
        writes = [row for row in ready if isinstance(row, GenerateJob) and row.left > 0]
        if reads:
            slots = [row.last_slots(row.last) for row in reads]
            features = self._model.features([slot for row in slots for slot in row]).split([len(row) for row in slots])
            for read, feature in zip(reads, features, strict=True):
                usage = read.report()
                self._out.append((read, HiddenState(feature, usage.prompt_computed, usage.prompt_cached)))
        if writes:
            logits = self._model.logits([slot for row in writes for slot in row.last_slots(1)])
            uniforms = [row.random.random() for row in writes]
            tokens = draw(logits, [row.request.sampling for row in writes], uniforms)
            for write, token in zip(writes, tokens, strict=True):
                chunk = write.append(token, self._eos, self.context)
                self._out.append((write, chunk))
                if chunk.finish is not None:
                    self._scheduler.end(write)
            self._sampled += len(writes)
        for row in ready:
            if row.ready:
                # The row needs no token, or no more tokens.
                if isinstance(row, GenerateJob):
                    self._out.append((row, Chunk((), "", finish="length", usage=row.report())))
                self._scheduler.end(row)

    def _forward(self, batch: list[Job]) -> None:
        paths = [self._scheduler.path(row) for row in batch]
        order = tree_order(paths)
        sequences = [Sequence_(paths[i], batch[i].tail, batch[i].taken) for i in order]
        ids: list[int] = []
        positions: list[int] = []
        for i in order:
            row = batch[i]
            end = row.computed + len(row.taken)
            ids += row.ids[row.computed : end]
            positions += range(row.computed, end)
        self._run(sequences, ids, positions)
        self._forwards += 1
        self._computed += len(ids)
        self._scheduler.ran(batch)
        for row in batch:
            # A caller that cancels in the middle of a long prompt still receives the usage up to that point.
            if row.samples and row.computed < row.known and row.computed_new:
                self._out.append((row, Chunk((), "", usage=row.report())))

    def _run(self, sequences: list[Sequence_], ids: list[int], positions: list[int]) -> None:
        if self._threads is None:
            self._model.run(sequences, ids, positions)
            return
        threads = self._threads.choose(len(ids))
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        begin = time.perf_counter()
        self._model.run(sequences, ids, positions)
        self._threads.took(len(ids), threads, time.perf_counter() - begin)

    def _hand_out(self) -> None:
        """Deliver all results of this round, with one call into each event loop."""
        out, self._out = self._out, []
        loops: dict[Any, list[tuple[Job, Any]]] = {}
        for job, item in out:
            loops.setdefault(job.loop, []).append((job, item))
        for loop, items in loops.items():
            try:
                loop.call_soon_threadsafe(_put, items)
            except RuntimeError:
                # The loop was closed without closing its streams, which will therefore never be read.
                for job, _ in items:
                    if not job.ended:
                        job.ended = True
                        self._scheduler.drop(job)

    def _note(self) -> None:
        scheduler = self._scheduler
        self._stats = Stats(
            running=len(scheduler.rows),
            queued=len(scheduler.queue),
            kv_used=scheduler.slots.capacity - scheduler.slots.free,
            kv_capacity=scheduler.slots.capacity,
            forwards=self._forwards,
            computed=self._computed,
            sampled=self._sampled,
            preemptions=scheduler.preemptions,
        )

    def _die(self, why: str) -> None:
        with self._lock:
            self._dead = why
            waiting = [*self._scheduler.rows, *self._scheduler.queue]
            calls = []
            for what, payload in self._inbox:
                if what == "add":
                    waiting.append(payload)
                elif what == "call":
                    calls.append(payload)
            self._inbox.clear()
        for row in waiting:
            row.ended = True
        self._out = [(row, why) for row in waiting]
        self._stats = Stats(0, 0, 0, self._scheduler.slots.capacity)
        self._scheduler.rows, self._scheduler.queue = [], deque()
        self._hand_out()
        for call in calls:
            call()


def _put(items: list[tuple[Job, Any]]) -> None:
    for job, item in items:
        job.results.put_nowait(item)
