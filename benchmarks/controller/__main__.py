"""`python -m benchmarks.controller [--problems N] [--folder DIR]`: the controller against every fixed plan.

Up to `--problems` test problems of each of the 18 families (26 by default, 411 in total), none of which the shipped
calibration or the embedded PRM has seen; three families are unlike all training data of either. Results are stored in
`--folder`, and the same command continues from there. A run from scratch takes about five hours on two cores. `--only`
runs one part, so that two processes can share the work.

Costs are the tokens sampled by the policy and those computed by the PRM, weighted by its size. A plan simulated from a
run with more candidates is charged its share of both, and what the PRM computes once per problem.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from benchmarks.controller.figures import everything
from benchmarks.controller.runs import PARTS, STATES, complete, items, models, read, run, states
from tts_tui.backends.local import download
from tts_tui.training.controller import hidden_states


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=26, help="of each family")
    parser.add_argument("--folder", type=Path, default=download.cache_root() / "controller", help="what is kept")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--only", choices=tuple(PARTS), help="run this part, and print nothing else")
    parser.add_argument("--report", action="store_true", help="run nothing: figures of what is done already")
    args = parser.parse_args()
    wanted = items(args.problems)
    args.folder.mkdir(parents=True, exist_ok=True)
    if not args.report:
        for part in [args.only] if args.only else PARTS:
            asyncio.run(run(part, args.problems, args.folder, args.threads))
        if args.only in (None, "samples"):
            asyncio.run(states(args.problems, args.folder, args.threads))
    if args.only:
        return
    parts = {part: read(part, args.folder) for part in PARTS}
    done = complete(wanted, parts)
    if len(done) < len(wanted):
        print(f"{len(done)} of {len(wanted)} problems are done by all plans; the figures are of these")
    figures, lines = everything(
        done, parts, models(args.folder), hidden_states.kept(args.folder / STATES, download.EMBEDDED.title)
    )
    print("\n".join(lines))
    (args.folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
