"""Runs SGLang's server. Started as a file, by a Python that may know nothing of this package: standard library only.

It does two things that `python -m sglang.launch_server` does not. The API key comes through standard input, for other
users can read command lines. And when standard input closes, for whoever started it is gone, the server goes too.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Reads the first line of standard input, the key or nothing, and becomes the server."""
    # This folder is no place to import from: its modules have names that others use.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [place for place in sys.path if place and os.path.abspath(place) != here]
    key = sys.stdin.readline().rstrip("\n")
    if key:
        sys.argv.append(f"--api-key={key}")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # alter_sys: the processes that SGLang spawns import the same main module again.
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    os.read(0, 1)  # unlike sys.stdin, it holds no lock that the end of Python waits for
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
