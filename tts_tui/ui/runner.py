"""One run in the terminal UI: its start, the actions of the user, and its failure as a sentence."""

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
    """A search started in the UI.

    Args:
        models: The loader of the models.
        path: The path of its recording, or None.

    Attributes:
        model: The state that the screens show.
        search: The handle on the running search; None before it starts and after it has ended.
        trouble: Why it failed, as a sentence; empty if it did not.
        ended: An event that is set once nothing is running any more.
        stopping: Whether it was asked to stop.
        held: Whether it pauses as soon as it starts.
        problem: The problem.
        plan: The requested plan; the one in effect is `model.tree.plan`.
        on_change: Called after every change: each event, and the end.
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
        """Return a run that begins with the path to `node` of another one, which stays unchanged."""
        runner = cls(models, tree.start.problem, plan, path)
        runner._origin = (tree, node)
        return runner

    @classmethod
    def resume(cls, models: ModelLoader, recording: Recording, budget: Budget | None = None) -> Runner:
        """Return the run of a recording, which continues in the same file.

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
        """True if nothing is running any more."""
        return self.ended.is_set()

    @property
    def changing(self) -> bool:
        """True if anything may still change: not while the run is paused and its last steps have been generated."""
        return not self.done and (not self.model.tree.paused or bool(self.model.writing))

    @property
    def running(self) -> bool:
        """True if a search is running, so that the user can act on it."""
        return self.search is not None

    async def work(self) -> None:
        """Load the models and run the search to its end. Never raises, except when cancelled."""
        self._task = asyncio.current_task()
        try:
            if not self.stopping:
                solver = await self.models.load()
                await self._run(solver)
        except TTSError as error:
            self.trouble = str(error)
        except MemoryError:
            self.trouble = "the memory is full: use a smaller N or a smaller model"
        except Exception as error:  # the UI survives any error of a search
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
        """Stop the search, which then returns the best answer so far. A run that has not started will not start."""
        self.stopping = True
        if self.search is not None:
            self.search.stop()
        elif self._task is not None:
            self._task.cancel()

    def act(self, action: Callable[[Search], object]) -> None:
        """Perform an action on the running search.

        Raises:
            TTSError: The action is not possible now; the message explains why.
        """
        if self.search is None:
            raise NotRunning("the search is over: press b to begin a new run from this step")
        action(self.search)


class NotRunning(TTSError):
    """No search is running that could be acted on."""
