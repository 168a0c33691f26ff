"""Launcher for SGLang's server, run as a script by a Python that may lack this package: standard library only.

It does two things that `python -m sglang.launch_server` does not. It reads the API key from standard input, because
other users can read command lines. And it kills the server when standard input closes, which means that the process
that started it is gone.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Read the API key, which may be empty, from the first line of standard input, and run the server."""
    # Nothing must be imported from this folder: its modules have names that other packages use.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [place for place in sys.path if place and os.path.abspath(place) != here]
    key = sys.stdin.readline().rstrip("\n")
    if key:
        sys.argv.append(f"--api-key={key}")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # alter_sys: the processes that SGLang spawns import the same main module again.
    runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    os.read(0, 1)  # unlike sys.stdin, it holds no lock that Python waits for at exit
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
