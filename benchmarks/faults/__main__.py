"""Searches under a storm of server faults: `python -m benchmarks.faults`.

Every search runs on servers of this process that break in some of the ways in which servers break, from a port that
refuses to a score that is not a number. The benchmark counts lost events of recordings, hung searches, leftovers on the
server or in this process, wrong endings, leaks of the API key, and errors without an explanation; each count must be 0,
and the exit code is 1 if one is not. For a failed case, the command that repeats it alone is printed.

--kills kills recording searches with SIGKILL, and checks that their recordings open, replay and resume.
--real kills real SGLang servers of this machine during searches.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.faults import kills, real, report, storm
from benchmarks.faults.cases import KINDS, deal
from benchmarks.faults.checks import leaks
from benchmarks.faults.stand_in import make_tokenizer
from benchmarks.faults.watching import Watch, brief_waits


def main() -> None:
    """Run the parts requested on the command line."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options = _parser().parse_args()
    if unknown := [name for name in options.only or () if name not in KINDS]:
        raise SystemExit(f"there is no kind {', '.join(unknown)}: there are {', '.join(sorted(KINDS))}")
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        parts: list[Callable[[argparse.Namespace, Path], Coroutine[Any, Any, int]]] = []
        if not (options.kills or options.real):
            parts.append(_storm)
        if options.kills:
            parts.append(_kills)
        if options.real:
            parts.append(real.run)
        found = sum(asyncio.run(part(options, folder)) for part in parts)
    sys.exit(1 if found else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--searches", type=int, default=None, help="200 by default, 12 with --real")
    parser.add_argument("--only", action="append", metavar="KIND", help="only faults of this kind; can be repeated")
    parser.add_argument("--case", type=int, default=None, help="only this case of the run")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep recordings and outputs in this folder")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill N recording searches instead")
    parser.add_argument("--real", action="store_true", help="kill real SGLang servers instead")
    parser.add_argument("--python", default=os.environ.get("TTS_TUI_SGLANG_PYTHON", ""), help="a Python with SGLang")
    parser.add_argument("--server-kills", type=int, default=6, metavar="N", help="kills of servers with --real")
    return parser


async def _storm(options: argparse.Namespace, folder: Path) -> int:
    searches = options.searches or 200
    cases = deal(options.seed, searches, tuple(options.only or ()))
    if options.case is not None:
        cases = [case for case in cases if case.number == options.case]
    again = f"python -m benchmarks.faults --seed {options.seed} --searches {searches}"
    again += "".join(f" --only {name}" for name in options.only or ())
    began, watch = monotonic(), Watch()

    def tell(outcome: storm.Outcome) -> None:
        if outcome.findings:
            print(report.line(outcome), flush=True)

    with tempfile.TemporaryDirectory() as place, brief_waits(), watch.watching():
        tokenizer = make_tokenizer(Path(place))
        outcomes = await storm.storm(cases, folder, tokenizer, watch, tell)
    strays = [*watch.strays, *(finding.what for finding in leaks(storm.KEY, "the log", "\n".join(watch.said)))]
    return report.show(outcomes, monotonic() - began, strays, again)


async def _kills(options: argparse.Namespace, folder: Path) -> int:
    with tempfile.TemporaryDirectory() as place, brief_waits():
        return await kills.run(options.kills, options.seed, folder, make_tokenizer(Path(place)))


if __name__ == "__main__":
    main()
