"""A worker process that compares answers: pairs come in as JSON lines, and verdicts go out.

`tts_tui.answers.grading` starts and kills it. It is the only place where model output meets a computer algebra system.
The operating system itself ends it when its time or memory is used up, so that no worker is left behind after its
parent was killed.
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
"""Memory limit of a worker, in bytes."""


def serve(lines: Iterable[str], say: Callable[[dict[str, Any]], None], algebra: Algebra, seconds: float = 0) -> None:
    """Reply to every pair in `lines`: true if both mean the same, false if not, or null if memory ran out.

    Args:
        lines: Pairs as JSON, `{"left": ..., "right": ...}`, one per line.
        say: Sends a reply.
        algebra: The algebra that compares expressions.
        seconds: Processor time per pair, after which the system ends this process; 0 for no limit.
    """
    for line in lines:
        pair = json.loads(line)
        if seconds:
            signal.setitimer(signal.ITIMER_PROF, seconds)
        verdict: bool | None
        try:
            verdict = agree(pair["left"], pair["right"], algebra)
        except MemoryError:  # another process, or this one later, may have enough memory
            verdict = None
        except Exception:  # a pair that the algebra cannot handle counts as different
            verdict = False
        if seconds:
            signal.setitimer(signal.ITIMER_PROF, 0)
        say({"same": verdict})


def main(seconds: float) -> None:
    """Limit memory, report readiness, and serve the pairs on standard input.

    Args:
        seconds: Processor time per pair; ignored on systems without interval timers.
    """
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not disturb the replies

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
        pass  # not available on every system; without it, only time is limited
    say({"ready": True})
    serve(sys.stdin, say, Sympy(), seconds if hasattr(signal, "setitimer") else 0)


if __name__ == "__main__":
    main(float(sys.argv[1]))
