"""A scripted policy and reward model for unit tests of the core. Texts and scores depend only on the path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from tts_tui import Chunk, ModelInfo, Prompt, ScoreRequest, StepRequest, StepScore, Usage
from tts_tui.errors import BackendError

EOS = 0
PROMPT = "P"
SEPARATOR = "\n\n"
Script = Callable[[tuple[str, ...], int], str]
"""A function of the texts of the path's steps, and of a number that identifies this continuation, to the next step.
After a step that ends with the separator the path continues; a "~" at the end marks the token limit; any other step
ends the answer."""


def encode(text: str) -> list[int]:
    return [ord(char) + 1 for char in text]


def decode(ids: Sequence[int]) -> str:
    return "".join(chr(id - 1) for id in ids if id != EOS)


def split(text: str) -> tuple[str, ...]:
    parts = text.split(SEPARATOR)
    return (*(part + SEPARATOR for part in parts[:-1]), *([parts[-1]] if parts[-1] else []))


class ScriptedPolicy:
    """A policy in which one character is one token, and every continuation of a path comes from a script.

    Args:
        script: The script of all continuations.
        context: The longest path.
        piece: The number of characters per chunk.
        counted: True to number continuations of a path 0, 1, 2, ... in the order of requests, instead of by their
            seeds.

    Attributes:
        requests: All requests, in the order in which they started.
        running: The number of open streams.
        sampled: The number of tokens in all chunks.
        faults: The errors to raise, one per request, before its stream starts; None for no error.
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
        """Wait until `running` streams are open."""
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
    """A reward model whose scores are a function of the path's texts."""

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
