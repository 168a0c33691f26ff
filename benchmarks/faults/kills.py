"""Kills of recording searches with SIGKILL, whose recordings are then opened, replayed and resumed."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from benchmarks.faults import checks, commands
from benchmarks.faults.cases import STRATEGIES, Planned
from benchmarks.faults.checks import HUNG, LOST, WRONG, Finding
from benchmarks.faults.kinds import Weather
from benchmarks.faults.server import Server
from benchmarks.faults.stand_in import StandIn
from benchmarks.faults.storm import KEY, specs
from tts_tui import Plan, Result, SearchTree, Solver, load, read
from tts_tui.errors import TTSError
from tts_tui.tree.events import AnyEvent, SearchFinished, StepStarted, StepStreamed, decode, encode

PACE = 0.02
"""Seconds between two events of a stream, slow enough for a search to be killed in the middle."""
DEADLINE = 60.0
AT_ONCE = 2


async def run(times: int, seed: int, folder: Path, tokenizer: Path) -> int:
    """Kill searches, print a summary, and return the number of findings."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[list[Finding], str]:
        async with slots:
            findings, how = await _kill(number, seed, folder, tokenizer)
            for finding in findings:
                print(f"kill {number} (seed {seed}), {how}: {finding.bar}: {finding.what}", flush=True)
            return findings, how

    done = await asyncio.gather(*map(one, range(times)))
    found = [finding for findings, _ in done for finding in findings]
    print(f"\n{times} searches killed with SIGKILL")
    print(f"killed: {', '.join(f'{how} {count}' for how, count in Counter(how for _, how in done).most_common())}")
    for bar in checks.BARS:
        print(f"{bar:<16}{sum(finding.bar == bar for finding in found):>7}")
    return len(found)


async def _kill(number: int, seed: int, folder: Path, tokenizer: Path) -> tuple[list[Finding], str]:
    """Kill one search and check its recording; also return the moment of the kill, in words."""
    draw = Random(f"{seed}/kill {number}")
    # Nothing is generated speculatively, so that each policy request can be matched with the step that it is for.
    plan = _plan(STRATEGIES[number % len(STRATEGIES)], draw)
    record = folder / f"kill-{number}.jsonl"
    record.unlink(missing_ok=True)
    async with AsyncExitStack() as stack:
        policy, prm = [
            await stack.enter_async_context(Server(StandIn(flavour, f"{seed}/{number}", tokenizer), Weather("", (), 0)))
            for flavour in ("sglang", "prm-head")
        ]
        policy.stand_in.pace = PACE
        served = prm if plan.vote != "majority" else None
        process = await commands.start(KEY, *commands.arguments(Planned(plan), policy, served, record))
        told = await _kill_after(process, draw.randint(1, 90), draw.uniform(0, PACE))
        if told is None:
            return [Finding(HUNG, "it neither wrote nor ended")], "hung"
        policy.stand_in.pace = 0.0
        findings = list(_opened(record, told))
        if findings or not told:
            return findings, "before its first event" if not told else "with a recording that does not open"
        before = load(record)
        policy.stand_in.asked.clear()
        findings += await _resume(policy, served, record, before)
        findings += checks.leaks(KEY, "the recording", record.read_bytes())
        return findings, f"in {plan.strategy}" if before.finished is None else "after its end"


async def _kill_after(process: asyncio.subprocess.Process, events: int, moment: float) -> list[bytes] | None:
    """Kill the process shortly after a number of events; return the lines of its output, or None if it hung."""
    assert process.stdout is not None
    lines: list[bytes] = []
    try:
        async with asyncio.timeout(DEADLINE):
            async for line in process.stdout:
                lines.append(line)
                if len(lines) == events and process.returncode is None:
                    await asyncio.sleep(moment)
                    process.kill()
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None
    return [line for line in lines if line.endswith(b"\n")]


def _opened(record: Path, told: list[bytes]) -> list[Finding]:
    """Check that the recording opens, replays, and holds every event that was displayed."""
    if not told and not record.exists():
        return []
    try:
        seen, tree = list(read(record)), load(record)
    except TTSError as error:
        return [Finding(LOST, f"the recording of a killed search does not open: {error}")]
    findings = []
    if checks.picture(tree) != checks.picture(SearchTree.fold(seen)):
        findings.append(Finding(LOST, "the recording replays into another tree than its events"))
    # Text of a step in progress is buffered for a moment, so it is displayed before it is recorded.
    heard = [decode(line) for line in told]
    kept = {encode(event) for event in seen}
    lost = [event for event in heard if not isinstance(event, StepStreamed) and encode(event) not in kept]
    if lost:
        findings.append(Finding(LOST, f"{len(lost)} events were told and not recorded, such as {lost[0]}"))
    return findings


async def _resume(policy: Server, prm: Server | None, record: Path, before: SearchTree) -> list[Finding]:
    """Resume a recording, and check the requests that the policy receives."""
    writer, judge = specs(policy, prm)
    whole = {_place(before, node.id) for node in before.nodes[1:] if node.state == "done"}
    events: list[AnyEvent] = []
    try:
        async with asyncio.timeout(DEADLINE), Solver(writer, judge if prm else None) as solver:
            result = await solver.resume(record, sinks=[events.append])
    except TimeoutError:
        return [Finding(HUNG, f"its resumption did not end within {DEADLINE:g} s")]
    except TTSError as error:
        return [Finding(WRONG, f"its resumption raised {type(error).__name__}: {error}")]
    findings = [*checks.ending(result), *checks.counts(result)]
    if result.reason not in ("solved", "unsolved"):
        findings.append(Finding(WRONG, f"its resumption ended by {result.reason}: {result.finished.detail}"))
    if checks.picture(load(record)) != checks.picture(result.tree):
        findings.append(Finding(LOST, "the replay of the resumed recording differs from the live tree"))
    kept = [node.text for node in result.tree.nodes[: len(before.nodes)] if node.state == "done"]
    if kept != [node.text for node in before.nodes if node.state == "done"]:
        findings.append(Finding(LOST, "steps of the killed search are not in the resumed one"))
    started = [event for event in events if isinstance(event, StepStarted)]
    again = [event.node for event in started if _place(result.tree, event.node) in whole]
    if again:
        findings.append(Finding(LOST, f"steps {again} are written a second time"))
    findings += _asked(policy, started, result)
    if not any(isinstance(event, SearchFinished) for event in events) and before.finished is None:
        findings.append(Finding(WRONG, "its resumption wrote no last event"))
    return findings


def _asked(policy: Server, started: list[StepStarted], result: Result) -> list[Finding]:
    """Check that the policy is only asked for new steps: each request has the path of the parent of one."""
    tree, prompt = result.tree, result.tree.start.prompt_ids
    wanted: Counter[tuple[int, ...] | str] = Counter((*prompt, *tree.nodes[event.parent].path_ids) for event in started)
    more = Counter(policy.stand_in.asked) - wanted
    if more:
        return [Finding(LOST, f"the policy was asked {more.total()} times more often than there are new steps")]
    return []


def _place(tree: SearchTree, id: int) -> tuple[tuple[int, int], ...]:
    return tuple((step.group, step.slot) for step in tree.nodes[id].path)


def _plan(strategy: str, draw: Random) -> Plan:
    simple = strategy in ("cot", "majority")
    return Plan(
        strategy=strategy,
        n=1 if strategy == "cot" else 8,
        m=2,
        vote="majority" if simple else "prm-max",
        step_tokens=96,
        total_tokens=400,
        max_depth=draw.choice((3, 8)),
        speculation="off",
    )
