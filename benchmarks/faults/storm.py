"""Run cases and check their searches."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from benchmarks.faults import checks, commands
from benchmarks.faults.cases import KINDS, Case, Planned
from benchmarks.faults.checks import HUNG, LEFT, LOST, WRONG, Finding
from benchmarks.faults.kinds import Weather
from benchmarks.faults.server import Server, told
from benchmarks.faults.stand_in import NAME, WIDTH, Flavour, StandIn
from benchmarks.faults.watching import CASE, Watch
from benchmarks.sglang.common import Dice
from tts_tui import Result, SearchTree, Solver, Usage
from tts_tui.backends.openai.policy import OpenAIPolicy
from tts_tui.backends.sglang.policy import SGLangPolicy
from tts_tui.backends.sglang.reward_model import SGLangPRM
from tts_tui.controller import priors
from tts_tui.controller.calibration import HiddenStateProjection
from tts_tui.errors import RecordError, StrategyError, TTSError, UsageError
from tts_tui.tree.events import AnyEvent, encode

KEY = "sk-4f1b0c8e2d7a49635e8b1c0da7f2936b"
"""The API key of all clients, which must not show anywhere."""
STALL, PATIENCE = 1.0, 1.0
DEADLINE = 30.0
"""Seconds of `Watch` after which a search counts as hung; nearly all take less than two."""
SETTLE = 4.0
"""Seconds that requests may stay open after a search; a client listens to an aborted one for one second."""
AT_ONCE = 6
"""Cases at once."""
PROBLEM = "What is 3 + 4 × (2 − 1)?"


class Outcome(Struct):
    """The outcome of a case.

    Attributes:
        case: The case.
        findings: All that must not be.
        faults: How often each kind was met.
        ends: How its searches ended: by a reason, or by the class of an error.
        seconds: How long it took.
    """

    case: Case
    findings: list[Finding] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Seen(Struct):
    """One search as it was observed.

    Attributes:
        path: Its recording.
        tree: Its live tree.
        events: All events that it told.
        result: What it gave.
        error: Or what it raised.
        hung: It had to be cancelled at the deadline.
    """

    path: Path
    tree: SearchTree = field(default_factory=SearchTree)
    events: list[AnyEvent] = field(default_factory=list)
    result: Result | None = None
    error: BaseException | None = None
    hung: str = ""


async def storm(cases: Sequence[Case], folder: Path, tokenizer: Path, watch: Watch, tell: Any) -> list[Outcome]:
    """Run all cases, several at once; `tell` is called with each outcome."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> Outcome:
        async with slots:
            began = monotonic()
            outcome = await run(case, folder, tokenizer, watch)
            outcome.seconds = monotonic() - began
            tell(outcome)
            return outcome

    return list(await asyncio.gather(*map(one, cases)))


async def run(case: Case, folder: Path, tokenizer: Path, watch: Watch) -> Outcome:
    """Run one case."""
    outcome = Outcome(case)
    _clear(folder, case)
    async with AsyncExitStack() as stack:
        policy = await stack.enter_async_context(_server(case, case.policy, tokenizer))
        prm = await stack.enter_async_context(_server(case, case.prm, tokenizer)) if case.prm else None
        servers = [policy, *([prm] if prm else [])]
        for server in servers:
            server.weather.calm = not case.rough
        if case.command:
            await commands.run(case, servers, folder, outcome)
        else:
            await asyncio.create_task(_in_process(case, policy, prm, folder, watch, outcome))
        for server in servers:
            outcome.faults += server.weather.counts
    return outcome


def _clear(folder: Path, case: Case) -> None:
    """Remove the files of an earlier run of this case."""
    for file in folder.glob(f"{case.number}-*"):
        file.unlink()


@contextlib.asynccontextmanager
async def _server(case: Case, flavour: Flavour, tokenizer: Path) -> AsyncIterator[Server]:
    seed = f"{case.seed}/{case.number}/{flavour}"
    weather = Weather(seed, [KINDS[name] for name in case.kinds], case.rate)
    async with Server(StandIn(flavour, seed, tokenizer), weather) as server:
        yield server


def specs(policy: Server, prm: Server | None) -> tuple[SGLangPolicy | OpenAIPolicy, SGLangPRM | Dice]:
    """Create clients of the servers."""
    settings: dict[str, Any] = {"api_key": KEY, "stall": STALL, "patience": PATIENCE}
    writer: SGLangPolicy | OpenAIPolicy
    if policy.stand_in.flavour == "sglang":
        writer = SGLangPolicy(policy.url, **settings)
    else:
        writer = OpenAIPolicy(f"{policy.url}#{NAME}", **settings)
    return writer, SGLangPRM(prm.url, **settings) if prm else Dice()


async def _in_process(
    case: Case, policy: Server, prm: Server | None, folder: Path, watch: Watch, outcome: Outcome
) -> None:
    CASE.set(case.name)
    writer, scorer = specs(policy, prm)
    solver = Solver(writer, scorer)
    seen = [Seen(folder / f"{case.number}-{place}.jsonl") for place in range(len(case.searches))]
    servers = [policy, *([prm] if prm else [])]
    note = outcome.findings.append
    try:
        async with solver:
            if not case.rough and any(planned.plan.vote != "majority" for planned in case.searches):
                await solver.reward_model(case.searches[-1].plan.replace(vote="prm-vote"))
            _calibrate(solver, scorer)
            for server in servers:
                server.weather.calm = False
                server.stand_in.rows.clear()
            await asyncio.gather(*(_search(solver, *pair, watch) for pair in zip(case.searches, seen, strict=True)))
            for left in await _settled(servers, watch):
                note(left)
            outcome.findings += _totals(case, writer, policy, prm, seen)
    except TTSError as error:
        outcome.ends[type(error).__name__] += len(seen)
        outcome.findings += [*checks.sentences([str(error)]), *checks.leaks(KEY, "an error at the start", str(error))]
        return
    except Exception as error:
        note(Finding(WRONG, f"the start raised {type(error).__name__}: {error}"))
        return
    if alive := watch.alive(case.name):
        note(Finding(LEFT, f"tasks are alive behind the solver: {', '.join(sorted(set(alive))[:5])}"))
    for each in seen:
        outcome.findings += judge(each)
        outcome.ends[each.result.reason if each.result else type(each.error).__name__] += 1


async def _search(solver: Solver, planned: Planned, seen: Seen, watch: Watch) -> None:
    """Run one search to its end, or to the deadline."""
    task = asyncio.create_task(
        solver.solve(PROBLEM, planned.plan, record=seen.path, sinks=[seen.events.append], tree=seen.tree)
    )
    if planned.end:
        await asyncio.wait([task], timeout=planned.after)
        task.cancel() if planned.end == "cancel" else solver.stop()
    await watch.wait(task, DEADLINE)
    if not task.done():
        frames = "; ".join(f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in task.get_stack())
        open_steps = [node.id for node in seen.tree.nodes if node.state == "writing"]
        seen.hung = f"it did not end within {DEADLINE:g} s: {frames}, steps {open_steps} open"
        task.cancel()
        await asyncio.wait([task], timeout=10)
    try:
        seen.result = task.result()
    except (Exception, asyncio.CancelledError) as error:
        seen.error = error
    if planned.end == "cancel" and isinstance(seen.error, asyncio.CancelledError):
        tree = seen.tree
        if tree.finished is not None:
            seen.result, seen.error = Result(PROBLEM, tree, tree.finished), None
        elif not tree.started:
            seen.error = UsageError("it was cancelled before it began")


async def _settled(servers: Sequence[Server], watch: Watch) -> list[Finding]:
    """Check that no request stays open after all searches."""
    end = watch.seconds + SETTLE
    while any(server.listener.open for server in servers) and watch.seconds < end:  # noqa: ASYNC110, `open` is a count
        await asyncio.sleep(0.01)
    return [
        Finding(LEFT, f"{server.listener.open} requests stay open on the {server.stand_in.flavour} server")
        for server in servers
        if server.listener.open
    ]


def _totals(
    case: Case, writer: SGLangPolicy | OpenAIPolicy, policy: Server, prm: Server | None, seen: Sequence[Seen]
) -> list[Finding]:
    """Check that clients, searches and servers agree on the tokens."""
    findings: list[Finding] = []
    trees = [each.tree for each in seen if each.tree.started]
    counted = Usage()
    for tree in trees:
        counted += Usage(tree.counts.prompt_computed, tree.counts.prompt_cached, tree.counts.completion)
    if counted != writer.total:
        findings.append(Finding(LOST, f"the searches count {counted} and the policy {writer.total}"))
    total = counted.prompt_computed + counted.prompt_cached + counted.completion
    low, high = told(policy.stand_in.rows)
    if not low <= total <= high:
        findings.append(Finding(LOST, f"the policy's server told of {low} to {high} tokens, and {total} are counted"))
    if prm is not None:
        computed = sum(tree.counts.prm_computed for tree in trees)
        low, high = told(prm.stand_in.rows)
        # In a rough case it starts within a search, and the step that it scores then is in no search.
        whole = not case.rough and all(each.result and each.result.reason in ("solved", "unsolved") for each in seen)
        if not (low if whole else 0) <= computed <= high:
            said = f"the PRM's server computed {low} to {high} tokens, and {computed} are counted"
            findings.append(Finding(LOST, said))
    if writer.dispatch.running:
        findings.append(Finding(LEFT, f"{writer.dispatch.running} requests hold leave to send"))
    return findings


def judge(seen: Seen) -> list[Finding]:
    """Run all checks of one search."""
    findings: list[Finding] = [Finding(HUNG, seen.hung)] if seen.hung else []
    if seen.result is not None:
        findings += [*checks.ending(seen.result), *checks.counts(seen.result)]
        findings += checks.sentences([*checks.failures(seen.events), seen.result.finished.detail])
    elif isinstance(seen.error, TTSError):
        findings += checks.sentences([str(seen.error)])
        if isinstance(seen.error, RecordError | StrategyError):
            findings.append(Finding(WRONG, f"it raised {type(seen.error).__name__}, as if no server had failed"))
        if seen.tree.started and seen.tree.finished is None:
            findings.append(Finding(WRONG, f"it raised {seen.error!r} and wrote no last event"))
    elif not seen.hung:
        findings.append(Finding(WRONG, f"it raised {type(seen.error).__name__}: {seen.error}"))
    if seen.tree.started:
        findings += checks.recording(seen.path, seen.tree, seen.events)
        findings += checks.leaks(KEY, "the recording", seen.path.read_bytes())
        findings += checks.leaks(KEY, "an event", b"\n".join(map(encode, seen.events)))
    if seen.error is not None:
        findings += checks.leaks(KEY, "an error", str(seen.error))
    return findings


def _calibrate(solver: Solver, scorer: SGLangPRM | Dice) -> None:
    """Make `auto` read hidden states, if the policy can return them."""
    if not isinstance(solver.policy, SGLangPolicy):
        return
    try:
        info = scorer.info
    except TTSError:  # not started
        return
    found = priors.calibration(solver.policy.info, info)
    projection = HiddenStateProjection((0.0,) * WIDTH, ((1.0,) + (0.0,) * (WIDTH - 1),))
    solver.calibration = replace(found, projection=projection)
