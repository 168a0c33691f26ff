"""`python -m benchmarks.accuracy [--problems N] [--write]`: search under the embedded PRM on held-out problems.

For every problem family, `--problems` problems of the test split (26 by default, fewer if a family is exhausted):
16 samples, scored by the PRM and voted on; beam search and DVTS with N = 16. Score and vote are those of the PRM's
profile, which were chosen on validation problems. Results are stored in `--folder`, and the same command continues
from there. A run from scratch takes about three hours on two cores. `--only` runs a part, so that two processes can
share the work.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec

import tts_tui
from benchmarks.accuracy.card import markdown, profile_text, table
from benchmarks.accuracy.cost import measure
from benchmarks.accuracy.figures import everything, families
from benchmarks.accuracy.levels import keep
from benchmarks.accuracy.runs import SEARCHES, Outcome, Store, run, test_problems
from tts_tui import Solver
from tts_tui.backends.adapter.reward_model import AdapterPRM, shipped
from tts_tui.backends.local import download
from tts_tui.backends.local.embedded import EmbeddedPolicy
from tts_tui.evaluation.datasets.families import FAMILIES

STRATEGIES = ("best-of-n", *SEARCHES)


async def outcomes(args: argparse.Namespace) -> tuple[dict[str, list[Outcome]], dict[str, Any]]:
    """Return the outcomes of the chosen strategies, and the cost of scoring."""
    wanted = test_problems(args.problems, args.families or tuple(FAMILIES))
    policy = EmbeddedPolicy(threads=args.threads)
    prm = AdapterPRM(policy, path=args.prm, threads=args.threads)
    digest = hashlib.sha256((args.prm or shipped()).read_bytes()).hexdigest()[:12]
    store = Store(args.folder / f"outcomes-{digest}")  # outcomes of different PRMs are stored separately
    async with Solver(policy, prm) as solver:
        found = {
            name: await run(solver, name, wanted, store, args.folder / "samples") for name in args.only or STRATEGIES
        }
        costs = {} if args.only else await measure(policy, AdapterPRM(policy, path=args.prm, threads=args.threads))
    return found, {"cost": costs}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=26, help="of each family")
    parser.add_argument("--families", nargs="*", choices=tuple(FAMILIES), help="only these")
    parser.add_argument("--folder", type=Path, default=download.cache_root() / "accuracy", help="what is kept")
    parser.add_argument("--prm", type=Path, default=None, help="another adapter than the shipped one")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--only", nargs="*", choices=STRATEGIES, help="run these, and print nothing else")
    parser.add_argument("--write", action="store_true", help="write the package's figures and its profile")
    args = parser.parse_args()
    if args.write and (args.families or args.prm):
        parser.error("--write is for the shipped PRM on all families: leave --families and --prm out")
    found, extra = asyncio.run(outcomes(args))
    if args.only:
        return
    defaults = AdapterPRM(path=args.prm).defaults
    figures = {**everything(found, defaults["score"], defaults["vote"]), **extra}  # type: ignore[arg-type]
    print(table(figures))
    (args.folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (args.folder / "figures.md").write_text(markdown(figures), encoding="utf-8")
    if args.write:
        package = Path(tts_tui.__file__).parent
        known = msgspec.json.format(msgspec.json.encode(families(found["best-of-n"])), indent=1)
        (package / "data" / "families.json").write_bytes(known + b"\n")
        keep(found, figures["rows"], figures["score"], figures["vote"])
        trained = json.loads(shipped().with_suffix(".json").read_text("utf-8"))
        (package / "profiles" / "embedded.toml").write_text(profile_text(figures, trained), encoding="utf-8")


if __name__ == "__main__":
    main()
