"""The time that a user waits: `python -m benchmarks.start [--runs N]`.

Minimum and median seconds of complete processes over some runs: importing the package, `--help`, and a one-line problem
solved with Best-of-N 16 on the embedded models, including loading. The bare interpreter is listed for comparison.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

IMPORT = "import tts_tui, sys; assert not {'torch', 'transformers', 'textual', 'rich'} & set(sys.modules)"
TTS = [sys.executable, "-m", "tts_tui"]


def seconds(command: list[str]) -> float:
    """Return the wall time of one process, which must succeed."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def row(name: str, command: list[str], runs: int) -> None:
    """Time `command`, after one run that warms the disk's cache, and print a row."""
    seconds(command)
    times = [seconds(command) for _ in range(runs)]
    print(f"{name:<42} {min(times):>7.2f} {statistics.median(times):>7.2f}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs: int = parser.parse_args().runs
    print(f"{'seconds':<42} {'least':>7} {'median':>7}")
    row("python -c pass", [sys.executable, "-c", "pass"], runs)
    row("python -c 'import tts_tui'", [sys.executable, "-c", IMPORT], runs)
    row("tts-tui --help", [*TTS, "--help"], runs)
    problem = "What is 7 + 8 - 6?"
    row("tts-tui solve, cot", [*TTS, "solve", problem, "--strategy", "cot", "--display", "none"], max(1, runs // 2))
    row("tts-tui solve, best-of-n 16", [*TTS, "solve", problem, "-n", "16", "--display", "none"], max(1, runs // 2))


if __name__ == "__main__":
    main()
