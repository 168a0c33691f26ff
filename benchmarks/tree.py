"""Time and memory of appending, scoring and folding a million nodes: `python -m benchmarks.tree [--nodes N]`.

Prints seconds and bytes per node, for folding events in memory and for writing them to a recording and reading it back.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

from tts_tui import ModelInfo, Plan, SearchTree, Usage, load
from tts_tui.tree.events import AnyEvent, SearchStarted, StepFinished, StepScored, StepStarted
from tts_tui.tree.recording import Recorder

STEP = "Step 12: {} * 4 = 48, and so on\n\n"


def events(nodes: int, width: int = 4) -> Iterator[AnyEvent]:
    """Yield the events of `nodes` scored steps of 13 tokens and about 35 characters, with `width` children each."""
    info = ModelInfo("bench", 135_000_000, 8192)
    yield SearchStarted(problem="p", plan=Plan(), policy=info, prm=info, prompt_ids=(1, 2, 3), version="", created="")
    for node in range(1, nodes + 1):
        t = node / 1000
        yield StepStarted(t=t, node=node, parent=(node - 1) // width, slot=(node - 1) % width)
        ids = tuple(range(node % 40_000, node % 40_000 + 13))
        usage = Usage(prompt_cached=400, completion=13)
        yield StepFinished(t=t, node=node, ids=ids, text=STEP.format(node), finish="step", usage=usage)
        yield StepScored(t=t, node=node, score=node % 1000 / 1000, cached=400)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    nodes: int = parser.parse_args().nodes

    began = time.perf_counter()
    made = sum(1 for _ in events(nodes))
    making = time.perf_counter() - began
    began = time.perf_counter()
    tree = SearchTree.fold(events(nodes))
    folding = time.perf_counter() - began
    best = max(tree.nodes[1:], key=lambda node: node.value)
    print(f"{nodes:,} nodes from {made:,} events: folded in {folding:.1f} s (of which {making:.1f} s made the events)")
    print(f"best node {best.id}, depth {best.depth}, counts {tree.counts.as_tuple()}")
    del tree, best

    sample = min(nodes, 200_000)
    tracemalloc.start()
    tree = SearchTree.fold(events(sample))
    print(f"{tracemalloc.get_traced_memory()[0] / sample:.0f} bytes a node (traced over {sample:,} nodes)")
    tracemalloc.stop()
    counts = tree.counts.as_tuple()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        began = time.perf_counter()
        with Recorder(path) as recorder:
            for event in events(sample):
                recorder(event)
        writing = time.perf_counter() - began
        size = path.stat().st_size
        began = time.perf_counter()
        same = load(path).counts.as_tuple() == counts
        reading = time.perf_counter() - began
    print(
        f"recording: {size / sample:.0f} bytes a node, written in {writing / sample * 1e6:.0f} us, read back and folded"
    )
    print(f"in {reading / sample * 1e6:.0f} us a node, the same tree: {same}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    print(f"peak memory of the process: {peak:,.0f} MiB")


if __name__ == "__main__":
    main()
