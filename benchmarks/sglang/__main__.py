"""The bars of the SGLang policy, against real servers: `python -m benchmarks.sglang`.

Without --url it starts its own servers on the CPU, with the Python of --python, which must have SGLang: one of the
model, one of it without a radix cache, and one of a tiny random model. The reward model is a hash of the text, the same
for tts-tui and for its_hub, since all bars are about orchestration. Everything is compared in the same run, in turn.
Nothing else may use the servers meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.sglang import aborts, client, kv, orchestration, speculation
from benchmarks.sglang.common import Options
from benchmarks.sglang.servers import make_tiny, serve

BARS: dict[str, Callable[[Options], Awaitable[None]]] = {
    "kv": kv.run,
    "orchestration": orchestration.run,
    "speculation": speculation.run,
    "client": client.run,
    "aborts": aborts.run,
}
ON_TINY = ("client", "aborts")


def main() -> None:
    """Run the requested bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url", default="", help="a server of the model, with its radix cache on")
    parser.add_argument("--cold-url", default="", help="the same with --disable-radix-cache")
    parser.add_argument("--tiny-url", default="", help="a server of a tiny model with --max-running-requests 256")
    parser.add_argument("--bars", default=",".join(BARS))
    parser.add_argument("--python", default=os.environ.get("TTS_TUI_SGLANG_PYTHON", ""), help="a Python with SGLang")
    parser.add_argument("--model", default="", help="folder of the model; the embedded one by default")
    parser.add_argument("--tiny", default="", help="folder of the tiny model; made by default")
    parser.add_argument("--its-hub", default="", help="a Python with its_hub 1.2")
    parser.add_argument("--problems", type=int, default=10)
    parser.add_argument("--turns", type=int, default=7, help="repetitions of each comparison of wall times")
    parser.add_argument("--total-tokens", type=int, default=384, help="longest path")
    args = vars(parser.parse_args())
    bars = args.pop("bars").split(",")
    if unknown := set(bars) - set(BARS):
        parser.error(f"there is no bar {', '.join(sorted(unknown))}: there are {', '.join(BARS)}")
    options = Options(**args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end too
    print("The reward model is a hash of the text, the same everywhere: these bars are about orchestration alone.")
    with contextlib.ExitStack() as stack:
        for bar in bars:
            _start(options, bar, stack)
            asyncio.run(BARS[bar](options))
            print(flush=True)


def _start(options: Options, bar: str, stack: contextlib.ExitStack) -> None:
    """Start the servers that `bar` needs and that are not running yet."""
    missing = [
        name
        for name, needed in (
            ("tiny_url", bar in ON_TINY or bar == "speculation"),
            ("url", bar not in ON_TINY),
            ("cold_url", bar == "kv" and bool(options.python)),
        )
        if needed and not getattr(options, name)
    ]
    if not missing:
        return
    if not options.python:
        raise SystemExit(f"the bar {bar} needs a server: give its address, or a Python that has SGLang with --python")
    if "tiny_url" in missing:
        tiny = options.tiny or make_tiny(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        options.tiny_url = stack.enter_context(serve(options.python, tiny, "--max-running-requests", "256"))
    if not {"url", "cold_url"} & set(missing):
        return
    if not options.model:
        from tts_tui.backends.local.download import model_path

        options.model = str(model_path())
    for name, flags in (("url", ()), ("cold_url", ("--disable-radix-cache",))):
        if name in missing:
            more = ("--max-running-requests", "64", *flags)
            setattr(options, name, stack.enter_context(serve(options.python, options.model, *more)))


if __name__ == "__main__":
    main()
