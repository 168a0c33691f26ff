"""Searches run by the command line, each in a separate process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.faults import checks
from benchmarks.faults.cases import Case, Planned
from benchmarks.faults.checks import HUNG, LOST, WRONG, Finding
from benchmarks.faults.server import Server
from benchmarks.faults.stand_in import NAME
from tts_tui import SearchTree, load, read
from tts_tui.displays.session import exit_code
from tts_tui.errors import TTSError
from tts_tui.tree.events import AnyEvent, decode, encode

if TYPE_CHECKING:
    from benchmarks.faults.storm import Outcome

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 90.0
"""Seconds until a process counts as hung, including the time to load transformers."""
START_FAILED = (2, 3)
"""Exit codes of a search that could not start."""


def arguments(planned: Planned, policy: Server, prm: Server | None, record: Path) -> list[str]:
    """Build the arguments of the command line."""
    plan = planned.plan
    spec = f"sglang:{policy.url}" if policy.stand_in.flavour == "sglang" else f"openai:{policy.url}#{NAME}"
    names = ("n", "m", "score", "vote", "variant", "speculation", "step_tokens", "total_tokens", "max_depth")
    options = {"strategy": plan.strategy, "temperature": plan.sampling.temperature, "record": record}
    options |= {name.replace("_", "-"): getattr(plan, name) for name in names}
    options |= {"policy": spec, "prm": f"sglang:{prm.url}" if prm else "none", "display": "json"}
    if plan.budget.tokens:
        options["budget-tokens"] = plan.budget.tokens
    if plan.budget.seconds:
        options["timeout"] = plan.budget.seconds
    flags = [word for name, value in options.items() for word in (f"{'-' * (1 + (len(name) > 1))}{name}", str(value))]
    return ["solve", "What is 3 + 4?", *flags]


def environment(key: str) -> dict[str, str]:
    """Build the environment of the process."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("TTS_TUI_")}
    return {**mine, "TTS_TUI_API_KEY": key, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


async def start(key: str, *words: str) -> asyncio.subprocess.Process:
    """Start the command line."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "benchmarks.faults.child", *words)
    return await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment(key), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )


async def run(case: Case, servers: Sequence[Server], folder: Path, outcome: Outcome) -> None:
    """Run a case by the command line."""
    from benchmarks.faults.storm import KEY

    for server in servers:
        server.weather.calm = False
    record = folder / f"{case.number}-command.jsonl"
    policy, prm = servers[0], servers[1] if len(servers) > 1 else None
    process = await start(KEY, *arguments(case.searches[0], policy, prm, record))
    try:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE)
    except TimeoutError:
        outcome.findings.append(Finding(HUNG, f"the command did not end within {DEADLINE:g} s"))
        process.kill()
        out, err = await process.communicate()
    assert process.returncode is not None
    (folder / f"{case.number}-command.out").write_bytes(out)
    (folder / f"{case.number}-command.err").write_bytes(err)
    outcome.ends[f"exit code {process.returncode}"] += 1
    outcome.findings += _judge(process.returncode, out, err.decode(errors="replace"), record)
    outcome.findings += checks.leaks(KEY, "the output", out + err)
    if record.exists():
        outcome.findings += checks.leaks(KEY, "the recording", record.read_bytes())


def _judge(code: int, out: bytes, err: str, record: Path) -> list[Finding]:
    findings = []
    if "Traceback" in err or "unexpected " in err:
        findings.append(Finding(WRONG, f"it wrote: {err[-500:]}"))
    try:
        events: list[AnyEvent] = [decode(each) for each in out.splitlines()]
        tree = SearchTree.fold(events)
    except TTSError as error:
        return [*findings, Finding(LOST, f"its output is no stream of events: {error}")]
    if not events:
        if code not in START_FAILED or err.count("\n") > 3:
            findings.append(Finding(WRONG, f"it could not begin, and ended with exit code {code}: {err[-500:]}"))
        return findings
    findings += checks.sentences(checks.failures(events))
    if tree.finished is None or code != exit_code(tree.finished):
        reason = tree.finished.reason if tree.finished else "no last event"
        findings.append(Finding(WRONG, f"exit code {code} for a search that ended by {reason}: {err[-300:]}"))
    if [encode(event) for event in read(record)] != [encode(event) for event in events]:
        findings.append(Finding(LOST, "the recording is not what the command told"))
    if checks.picture(load(record)) != checks.picture(tree):
        findings.append(Finding(LOST, "the recording and what the command told are different trees"))
    return findings
