"""The terminal UI against its bars: `python -m benchmarks.ui [PART ...] [--nodes N]`; all parts by default.

tree: ten more steps every 50 ms under the tree view: lag of the event loop, and number of rows painted per pull.
memory: bytes per node that the view needs in addition to the tree.
streams: 16 streams of 50 tokens/s in a real terminal: CPU time compared with no display, and bytes written.
start: seconds to the first screen in a real terminal, and whether anything heavy is loaded by then.
search: seconds of the same search on the embedded models with the terminal UI and without a display.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.ui import rows, search, start, streams


def main() -> None:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="tree, memory, streams, start, search")
    parser.add_argument("--nodes", type=int, default=50_000, help="nodes of the tree in tree and memory")
    options = parser.parse_args()
    parts: dict[str, Callable[[], None]] = {
        "tree": lambda: rows.tree(options.nodes),
        "memory": lambda: rows.memory(options.nodes),
        "streams": streams.run,
        "start": start.run,
        "search": search.run,
    }
    if unknown := sorted(set(options.parts) - set(parts)):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(parts)}")
    for name in options.parts or parts:
        print(f"-- {name}", flush=True)
        parts[name]()


if __name__ == "__main__":
    main()
