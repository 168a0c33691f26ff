"""The terminal UI against its bars: `python -m benchmarks.ui [PART ...] [--nodes N]`; without a part all of them.

tree: ten steps more every 50 ms under the tree view: how late the event loop is, and how many rows a pull paints.
memory: bytes a node that the view needs beside the tree.
streams: 16 streams of 50 tokens/s in a real terminal: CPU time beside the same without a display, bytes written.
start: seconds to the first screen in a real terminal, and whether anything heavy is loaded by then.
search: seconds of the same search on the embedded models with the terminal UI and without a display.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks.ui import rows, search, start, streams


def main() -> None:
    """Runs the parts that were asked for."""
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
