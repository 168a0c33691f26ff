"""The tree view by itself, without a terminal: lag of the event loop, and memory of the view."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
import time
import tracemalloc
from collections.abc import AsyncIterator

from textual.app import App, ComposeResult

from benchmarks.tree import events
from tts_tui import SearchTree, Usage
from tts_tui.tree.events import StepFinished, StepScored, StepStarted, StepStreamed
from tts_tui.ui.tree_rows import TreeRows
from tts_tui.ui.widgets.tree_view import TreeView

LAG_BAR = 0.016
"""Maximum lag of the event loop in seconds."""
MEMORY_BAR = 500
"""Maximum number of bytes per node of a view."""
PULLS = 10
"""Number of pulls per second, as in the screens."""
STREAMS = 8
"""Number of steps that are being generated meanwhile."""


class Run:
    """A growing tree with the attributes that the view needs."""

    def __init__(self, nodes: int) -> None:
        self.tree = SearchTree.fold(events(nodes))
        self.folding = TreeRows(self.tree)
        self.writing: dict[int, None] = {}

    def grow(self, steps: int, width: int = 4) -> None:
        """Add finished and scored steps, and a token to each of those that are being generated."""
        for _ in range(steps):
            node = len(self.tree.nodes)
            self.tree.apply(StepStarted(node=node, parent=(node * 7919) % (node - STREAMS), slot=node % width))
            usage = Usage(completion=13)
            self.tree.apply(StepFinished(node=node, ids=(1,) * 13, text=f"Step {node}", finish="step", usage=usage))
            self.tree.apply(StepScored(node=node, score=node % 1000 / 1000))
            self.folding.sync()
            self.folding.changed(node)
        for node in self.writing:
            self.tree.apply(StepStreamed(node=node, text=f" {node}", usage=Usage(completion=1)))

    def begin(self, parent: int) -> None:
        """Start a step that stays unfinished."""
        node = len(self.tree.nodes)
        self.tree.apply(StepStarted(node=node, parent=parent, slot=9))
        self.writing[node] = None


class Shell(App[None]):
    def __init__(self, run: Run) -> None:
        super().__init__()
        self.shown = run
        self.rows: list[int] = []

    def compose(self) -> ComposeResult:
        yield TreeView()

    def on_mount(self) -> None:
        view = self.query_one(TreeView)
        view.show(self.shown)
        view.focus()
        self.set_interval(1 / PULLS, lambda: self.rows.append(view.pull(len(self.rows))))


@contextlib.asynccontextmanager
async def lags() -> AsyncIterator[list[float]]:
    """Measure the lag of the event loop, as the delays of a task that repeatedly sleeps for 2 ms."""
    late: list[float] = []

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.002)
            late.append(time.perf_counter() - began - 0.002)

    task = asyncio.create_task(watch())
    try:
        yield late
    finally:
        task.cancel()


def _late(what: str, late: list[float]) -> None:
    """Print lags against the bar."""
    half, most = statistics.median(late), statistics.quantiles(late, n=100)[98]
    figures = f"p50 {half * 1000:.1f}, p99 {most * 1000:.1f}, largest {max(late) * 1000:.1f} ms"
    print(f"{what:<60} lag {figures}; bar {LAG_BAR * 1000:.0f} ms, p99 / bar {most / LAG_BAR:.2f}")


async def grown(nodes: int, follow: bool, seconds: float = 6.0) -> None:
    """Measure lags while a tree grows, with the cursor in the middle of it or on its newest step."""
    run = Run(nodes)
    app = Shell(run)
    async with app.run_test(size=(120, 40)) as pilot:
        view = app.query_one(TreeView)
        for place in range(STREAMS):
            run.begin(nodes // 2 + place)
        await pilot.pause()
        view.select(nodes // 2)
        view.follow = "newest" if follow else "off"
        await pilot.pause(0.3)
        gc.collect()
        app.rows.clear()
        async with lags() as late:
            for _ in range(round(seconds / 0.05)):
                run.grow(10)
                await asyncio.sleep(0.05)
    mode = "the newest step followed" if follow else "the cursor stands"
    _late(f"{nodes:,} nodes, 200 more a second, {mode}", late)
    rows = statistics.fmean(app.rows)
    print(f"{'':<60} rows painted a pull {rows:.1f} of 40 (largest {max(app.rows)})")


def tree(nodes: int) -> None:
    """Print lags under the tree view."""
    asyncio.run(grown(min(nodes, 1_000), follow=False))
    asyncio.run(grown(nodes, follow=False))
    asyncio.run(grown(nodes, follow=True))
    folding = Run(nodes).folding
    began = time.perf_counter()
    for top in range(0, len(folding) - 40, max(1, len(folding) // 500)):
        folding.window(top, 40)
    count = len(range(0, len(folding) - 40, max(1, len(folding) // 500)))
    print(f"{'':<60} 40 rows found in {(time.perf_counter() - began) / count * 1e6:.0f} us")


def memory(nodes: int) -> None:
    """Print bytes per node."""

    async def scrolled(run: Run) -> None:
        app = Shell(run)
        async with app.run_test(size=(120, 40)) as pilot:
            view = app.query_one(TreeView)
            await pilot.pause()
            before = tracemalloc.get_traced_memory()[0]
            view.cycle_order()
            for row in range(0, nodes, nodes // 200):
                view.scroll_to(y=row, animate=False)
                await pilot.pause()
            gc.collect()
            used.append(tracemalloc.get_traced_memory()[0] - before)

    run = Run(nodes)
    used: list[int] = []
    gc.collect()
    tracemalloc.start()
    run.folding = TreeRows(run.tree)
    gc.collect()
    used.append(tracemalloc.get_traced_memory()[0])
    asyncio.run(scrolled(run))
    tracemalloc.stop()
    rows, widget = (each / nodes for each in used)
    print(
        f"{nodes:,} nodes: rows {rows:.0f} bytes a node, the widget {widget:.0f} after a scroll through all by score; "
    )
    print(f"{'':<60} bar {MEMORY_BAR}, both / bar {(rows + widget) / MEMORY_BAR:.2f}")
