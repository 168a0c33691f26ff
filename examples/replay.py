"""Print a recording's solutions (`tts-tui solve ... --record run.jsonl`): `python examples/replay.py run.jsonl`."""

from __future__ import annotations

import sys

from tts_tui import load


def main(path: str) -> None:
    tree = load(path)  # `tts_tui.read` yields the events instead, one by one
    print(f"problem: {tree.start.problem}")
    for node in tree.solutions:
        scores = " ".join(f"{score:.2f}" for score in node.scores)
        print(f"  {node.label}: answer {node.answer}, step scores {scores or 'none'}")
    print(f"answer: {tree.finished.answer if tree.finished else 'the recording ends before the search did'}")


if __name__ == "__main__":
    main(sys.argv[1])
