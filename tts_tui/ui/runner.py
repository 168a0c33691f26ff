"""One run in the terminal UI: begins it, holds what a person may do in it, and keeps its failure in words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tts_tui.budget import Budget
from tts_tui.errors import TTSError
from tts_tui.plan import Plan
from tts_tui.search.result import Result
from tts_tui.search.search import Search
from tts_tui.solver import Solver
from tts_tui.tree.events import AnyEvent
from tts_tui.tree.recording import Recording
from tts_tui.tree.search_tree import SearchTree
from tts_tui.ui.model_loader import ModelLoader
from tts_tui.ui.run_model import RunModel


class Runner:
    """A search that was asked for in the UI.

    Args:
        models: Whom it asks.
        path: Its recording, or None.

    Attributes:
        model: What the screens show.
        search: The handle on the running search; None before it begins and after it ended.
        trouble: Why it failed, a sentence; empty if it did not.
        ended: Set once nothing runs any more.
        stopping: Whether it was told to stop.
        held: Whether it pauses as soon as it begins.
        problem: What is to be solved.
        plan: What was asked for; `model.tree.plan` is what holds now.
        on_change: Called with every change: events, the end.
    """

    def __init__(self, models: ModelLoader, problem: str, plan: Plan, path: Path | None) -> None:
        self.models = models
        self.problem = problem
        self.plan = plan
        self.path = path
        self.model = RunModel()
        self.search: Search | None = None
        self.trouble = ""
        self.ended = asyncio.Event()
        self.stopping = self.held = False
        self.on_change: Callable[[], object] = lambda: None
        self._origin: tuple[SearchTree, int] | None = None
        self._task: asyncio.Task[object] | None = None
        self._recording: Recording | None = None
        self._budget: Budget | None = None

    @classmethod
    def fork(cls, models: ModelLoader, tree: SearchTree, node: int, plan: Plan, path: Path | None) -> Runner:
        """A run that begins with the path to `node` of another one, which stays as it is."""
        runner = cls(models, tree.start.problem, plan, path)
        runner._origin = (tree, node)
        return runner

    @classmethod
    def resume(cls, models: ModelLoader, recording: Recording, budget: Budget | None = None) -> Runner:
        """The run of a recording, which goes on in the same file.

        Raises:
            TTSError: The recording cannot be used.
        """
        model = RunModel()
        for event in recording.events:
            model.apply(event)
        runner = cls(models, model.tree.start.problem, model.tree.plan, recording.path)
        runner.model = model
        runner._recording = recording
        runner._budget = budget
        return runner

    @property
    def done(self) -> bool:
        """Whether nothing runs any more."""
        return self.ended.is_set()

    @property
    def changing(self) -> bool:
        """Whether something goes on: not while it is paused, and the last steps have been written."""
        return not self.done and (not self.model.tree.paused or bool(self.model.writing))

    @property
    def running(self) -> bool:
        """Whether a search runs, so that a person can take part."""
        return self.search is not None

    async def work(self) -> None:
        """Loads the models and runs the search to its end. Never raises, except when cancelled."""
        self._task = asyncio.current_task()
        try:
            if not self.stopping:
                solver = await self.models.load()
                await self._run(solver)
        except TTSError as error:
            self.trouble = str(error)
        except MemoryError:
            self.trouble = "the memory is full: use a smaller N or a smaller model"
        except Exception as error:  # the UI outlives whatever happens in a search
            self.trouble = f"unexpected {type(error).__name__}: {error}"
        finally:
            self.search = None
            self.ended.set()
            self.on_change()

    def _run(self, solver: Solver) -> Awaitable[Result]:
        if self._recording is not None:
            return solver.resume(self._recording, sinks=[self._apply], budget=self._budget, steer=self._begun)
        common = {"record": self.path, "sinks": [self._hear], "steer": self._begun}
        if self._origin is not None:
            tree, node = self._origin
            return solver.fork(tree, tree.nodes[node], self.plan, into=self.model.tree, **common)  # type: ignore[arg-type]
        return solver.solve(self.problem, self.plan, tree=self.model.tree, **common)  # type: ignore[arg-type]

    def _hear(self, event: AnyEvent) -> None:
        self.model.hear(event)
        self.on_change()

    def _apply(self, event: AnyEvent) -> None:
        self.model.apply(event)
        self.on_change()

    def _begun(self, search: Search) -> None:
        self.search = search
        if self.held:
            search.pause()

    def stop(self) -> None:
        """Ends the search; the best answer so far is given. Before it has begun, it does not begin."""
        self.stopping = True
        if self.search is not None:
            self.search.stop()
        elif self._task is not None:
            self._task.cancel()

    def act(self, action: Callable[[Search], object]) -> None:
        """Does something in the running search.

        Raises:
            TTSError: It cannot be done now; the message says why.
        """
        if self.search is None:
            raise NotRunning("the search is over: press b to begin a new run from this step")
        action(self.search)


class NotRunning(TTSError):
    """There is no search to take part in."""
