"""A process that compares answers: pairs as JSON lines in, verdicts out. `tts_tui.answers.grading` starts and kills it.

It is the only place where what a model wrote meets a computer algebra system. The system itself ends it where its time
or memory is used up, so that none is left behind when its parent was killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from tts_tui.answers.structure import Algebra, agree

_MEMORY = 2 << 30
"""Bytes that it may take."""


def serve(lines: Iterable[str], say: Callable[[dict[str, Any]], None], algebra: Algebra, seconds: float = 0) -> None:
    """Answer every pair in `lines`: whether both are the same, or null if the memory was too small to tell.

    Args:
        lines: One pair each: `{"left": ..., "right": ...}`.
        say: Sends a reply.
        algebra: Compares expressions.
        seconds: Processor time for a pair, after which the system ends this process; 0 for any time.
    """
    for line in lines:
        pair = json.loads(line)
        if seconds:
            signal.setitimer(signal.ITIMER_PROF, seconds)
        verdict: bool | None
        try:
            verdict = agree(pair["left"], pair["right"], algebra)
        except MemoryError:  # another process, or this one at another time, may have room for it
            verdict = None
        except Exception:  # whatever was written, and whatever the algebra makes of it: then it is not the same
            verdict = False
        if seconds:
            signal.setitimer(signal.ITIMER_PROF, 0)
        say({"same": verdict})


def main(seconds: float) -> None:
    """Serve standard input."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not be heard

    def say(reply: dict[str, Any]) -> None:
        out.write(json.dumps(reply) + "\n")

    try:
        from tts_tui.answers.symbolic import Sympy
    except ImportError as error:
        say({"error": str(error)})
        return
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass  # not on every system: there, only time is limited
    say({"ready": True})
    serve(sys.stdin, say, Sympy(), seconds if hasattr(signal, "setitimer") else 0)


if __name__ == "__main__":
    main(float(sys.argv[1]))
