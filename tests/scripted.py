"""A scripted policy and reward model for unit tests of the core. Texts and scores are functions of the path alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from tts_tui import Chunk, ModelInfo, Prompt, ScoreRequest, StepRequest, StepScore, Usage
from tts_tui.errors import BackendError

EOS = 0
PROMPT = "P"
SEPARATOR = "\n\n"
Script = Callable[[tuple[str, ...], int], str]
"""(texts of the path's steps, a number that tells this continuation from others) -> the next step. A step that ends
with the separator goes on; "~" at its end is the token limit; anything else ends the answer."""


def encode(text: str) -> list[int]:
    return [ord(char) + 1 for char in text]


def decode(ids: Sequence[int]) -> str:
    return "".join(chr(id - 1) for id in ids if id != EOS)


def split(text: str) -> tuple[str, ...]:
    parts = text.split(SEPARATOR)
    return (*(part + SEPARATOR for part in parts[:-1]), *([parts[-1]] if parts[-1] else []))


class ScriptedPolicy:
    """One character is one token, and every continuation of a path comes from the script.

    Args:
        script: What to say.
        context: Longest path.
        piece: Characters a chunk.
        counted: Number continuations of a path 0, 1, 2, ... in the order of their requests, instead of by their seeds.

    Attributes:
        requests: All requests, in the order in which they started.
        running: Streams that are open.
        sampled: Tokens in all chunks that were made.
        faults: Errors to raise, one per request, before its stream begins; None for none.
    """

    def __init__(
        self, script: Script, *, context: int = 100_000, piece: int = 1_000_000, counted: bool = False
    ) -> None:
        self.script = script
        self.info = ModelInfo("scripted", 10, context)
        self.requests: list[StepRequest] = []
        self.seen: dict[tuple[int, ...], int] = {}
        self.running = self.sampled = 0
        self.opened = asyncio.Event()
        self.most_running = 0
        self.closed = False
        self.faults: list[BackendError | None] = []
        self.hold: asyncio.Event | None = None
        self.piece = piece
        self.counted = counted

    async def start(self) -> None: ...

    async def reached(self, running: int) -> None:
        """Returns once so many streams are open."""
        while self.running < running:
            self.opened.clear()
            await self.opened.wait()

    async def close(self) -> None:
        self.closed = True

    async def prompt(self, problem: str) -> Prompt:
        return Prompt(problem, tuple(encode(PROMPT)))

    async def stream(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
        self.requests.append(request)
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        self.running += 1
        self.opened.set()
        self.most_running = max(self.most_running, self.running)
        try:
            async for chunk in self._chunks(request):
                self.sampled += chunk.usage.completion
                yield chunk
        finally:
            self.running -= 1

    async def _chunks(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
        path = split(decode(request.ids[len(PROMPT) :]))
        which = self.seen.get(request.ids, 0) if self.counted else request.seed
        self.seen[request.ids] = self.seen.get(request.ids, 0) + 1
        usage = Usage(prompt_cached=len(request.ids))
        while True:
            text = self.script(path, which)
            cut = text.endswith("~")
            text = text[:-1] if cut else text
            ends = not text.endswith(SEPARATOR) and not cut
            for place in range(0, len(text), self.piece):
                piece = text[place : place + self.piece]
                whole = place + self.piece >= len(text)
                last = whole and not ends
                done = last and (cut or not request.rollout)
                usage += Usage(completion=len(piece))
                finish = None if not done else "length" if cut else "step"
                if self.hold is not None:
                    await self.hold.wait()
                await asyncio.sleep(0)
                yield Chunk(tuple(encode(piece)), piece, last and not cut, finish, usage)
                usage = Usage()
                if done:
                    return
            if ends:
                yield Chunk((EOS,), "", False, "eos", Usage(completion=1) + usage)
                return
            path = (*path, text)


class ScriptedPRM:
    """Scores are a function of the path's texts."""

    def __init__(self, rule: Callable[[tuple[str, ...]], float]) -> None:
        self.rule = rule
        self.info = ModelInfo("scripted-prm", 5, 100_000)
        self.batches: list[list[tuple[str, ...]]] = []
        self.faults: list[BackendError | None] = []
        self.waiting = False

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
        self.batches.append([request.steps for request in requests])
        self.waiting = True
        await asyncio.sleep(0)
        self.waiting = False
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        return [StepScore(self.rule(request.steps), computed=1, cached=2) for request in requests]
