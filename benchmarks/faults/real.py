"""Searches on two local SGLang servers, a policy and a PRM, which are killed and restarted."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

from benchmarks.faults import checks, storm
from benchmarks.faults.cases import STRATEGIES
from benchmarks.faults.checks import LEFT, LOST, WRONG, Finding
from benchmarks.faults.storm import KEY, Seen
from benchmarks.faults.watching import CASE, Watch
from benchmarks.sglang.servers import busy, make_tiny
from tts_tui import Plan, Solver, Usage
from tts_tui.backends.local import download
from tts_tui.backends.remote.http import Http
from tts_tui.backends.sglang.launch import Kind, command, examine
from tts_tui.backends.sglang.policy import SGLangPolicy
from tts_tui.backends.sglang.process import ServerProcess
from tts_tui.backends.sglang.reward_model import SGLangPRM
from tts_tui.errors import TTSError

READY_SECONDS = 300.0
PATIENCE, STALL = 300.0, 60.0
DEADLINE = 600.0
IDLE_SECONDS = 10.0
AT_ONCE = 2
"""Number of searches in a round; one server is killed in each round, as long as kills are left."""


class Machine:
    """A local SGLang server that can be killed and restarted on its port."""

    def __init__(self, kind: Kind, model: Path, python: str) -> None:
        self.kind: Kind = kind
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        settings: dict[str, Any] = {"port": port, "context_length": 2048, "api_key": KEY}
        self._launch = command(kind, str(model), examine(python, "cpu"), **settings)
        self._process = ServerProcess(self._launch)
        self.url = self._launch.url

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._process = ServerProcess(self._launch)
        self._process.start()
        self._process.wait_ready(timeout=READY_SECONDS)

    def kill(self) -> None:
        """Kill all processes of the server with SIGKILL."""
        self._process.kill()

    async def busy(self) -> bool:
        """Return whether requests are running or queued."""
        http = Http(self.url, api_key=KEY)
        await http.open()
        try:
            return bool(await busy(http))
        finally:
            await http.close()


async def run(options: argparse.Namespace, folder: Path) -> int:
    """Run the searches, print a summary, and return the number of findings."""
    if not options.python:
        raise SystemExit("--real needs a Python that has SGLang: name it with --python, or in TTS_TUI_SGLANG_PYTHON")
    began, watch = monotonic(), Watch()
    with tempfile.TemporaryDirectory() as place, _machines(Path(place), options.python) as machines:
        for machine in machines:
            await asyncio.to_thread(machine.start)
        print(f"two servers are ready after {monotonic() - began:.0f} s", flush=True)
        with watch.watching():
            rounds = asyncio.create_task(_rounds(options, folder, machines, watch))
            findings, ends, kills = await rounds
    findings += [Finding(WRONG, f"a stray error: {stray}") for stray in watch.strays]
    for finding in findings:
        print(f"{finding.bar}: {finding.what}")
    searches = sum(ends.values())
    print(f"\n{searches} searches, {kills} kills of a server by SIGKILL, {monotonic() - began:.0f} s")
    print(f"ended: {', '.join(f'{name} {count}' for name, count in ends.most_common())}")
    for bar in checks.BARS:
        print(f"{bar:<16}{sum(finding.bar == bar for finding in findings):>7}")
    return len(findings)


@contextlib.contextmanager
def _machines(place: Path, python: str) -> Iterator[list[Machine]]:
    """Create both servers, not started; they are killed when the context ends."""
    machines = [Machine("policy", make_tiny(place / "policy"), python), Machine("prm", make_prm(place / "prm"), python)]
    try:
        yield machines
    finally:
        for machine in machines:
            machine.kill()


async def _rounds(
    options: argparse.Namespace, folder: Path, machines: list[Machine], watch: Watch
) -> tuple[list[Finding], Counter[str], int]:
    """Run the searches in rounds, with one kill in each."""
    CASE.set("real")
    draw = Random(f"{options.seed}/real")
    writer = SGLangPolicy(machines[0].url, api_key=KEY, patience=PATIENCE, stall=STALL)
    judge = SGLangPRM(machines[1].url, api_key=KEY, patience=PATIENCE, stall=STALL)
    findings: list[Finding] = []
    ends: Counter[str] = Counter()
    trees, kills, turn = [], 0, 0
    async with Solver(writer, judge) as solver:
        for first in range(0, options.searches or 12, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, options.searches or 12))
            seen = [Seen(folder / f"real-{number}.jsonl") for number in numbers]
            for each in seen:
                each.path.unlink(missing_ok=True)
            plans = [plan(STRATEGIES[number % len(STRATEGIES)]) for number in numbers]
            if scored := any(each.vote != "majority" for each in plans):
                turn += 1
            victim = machines[turn % 2 if scored else 0] if kills < options.server_kills else None
            killing = asyncio.create_task(_kill(victim, seen, draw.randint(5, 60)))
            searching = [asyncio.create_task(_search(solver, *pair)) for pair in zip(plans, seen, strict=True)]
            await asyncio.gather(*searching)
            kills += await killing
            for machine in machines:
                findings += await _idle(machine)
            for number, each in zip(numbers, seen, strict=True):
                name = each.result.reason if each.result else type(each.error).__name__
                ends[name] += 1
                trees.append(each.tree)
                failures = len(checks.failures(each.events))
                print(f"search {number}, {plans[number - first].strategy}: {name}, {failures} failures", flush=True)
                findings += storm.judge(each)
        counted = [tree.counts for tree in trees]
        total = Usage(
            sum(counts.prompt_computed for counts in counted),
            sum(counts.prompt_cached for counts in counted),
            sum(counts.completion for counts in counted),
        )
        if total != writer.total:
            findings.append(Finding(LOST, f"the searches count {total} and the policy {writer.total}"))
    if alive := watch.alive("real"):
        findings.append(Finding(LEFT, f"tasks are alive behind the solver: {', '.join(alive)}"))
    return findings, ends, kills


async def _search(solver: Solver, asked: Plan, seen: Seen) -> None:
    try:
        async with asyncio.timeout(DEADLINE):
            seen.result = await solver.solve(
                storm.PROBLEM, asked, record=seen.path, sinks=[seen.events.append], tree=seen.tree
            )
    except TimeoutError:
        seen.hung = f"it did not end within {DEADLINE:g} s"
    except Exception as error:
        seen.error = error


async def _kill(victim: Machine | None, seen: list[Seen], events: int) -> int:
    """Kill a server after a number of events and restart it; return the number of kills."""
    if victim is None:
        return 0
    while sum(len(each.events) for each in seen) < events and not all(  # noqa: ASYNC110
        each.result or each.error or each.hung for each in seen
    ):
        await asyncio.sleep(0.002)
    await asyncio.to_thread(victim.kill)
    began = monotonic()
    await asyncio.to_thread(victim.start)
    print(f"the {victim.kind}'s server was killed and is back after {monotonic() - began:.0f} s", flush=True)
    return 1


async def _idle(machine: Machine) -> list[Finding]:
    """Check that a server becomes idle."""
    end = monotonic() + IDLE_SECONDS
    while monotonic() < end:
        with contextlib.suppress(TTSError):
            if not await machine.busy():
                return []
        await asyncio.sleep(0.1)
    return [Finding(LEFT, f"the {machine.kind}'s server is busy {IDLE_SECONDS:g} s after all searches ended")]


def plan(strategy: str) -> Plan:
    """Plan a search on random weights, whose text has no blank lines but many letters."""
    simple = strategy in ("cot", "majority")
    return Plan(
        strategy=strategy,
        n=1 if strategy == "cot" else 8,
        m=2,
        vote="majority" if simple else "prm-max",
        step_tokens=48,
        total_tokens=400,
        max_depth=8,
        separator="a",
    )


def make_prm(folder: Path) -> Path:
    """Write a random two-layer PRM in the format of TRL's trainer, with the embedded model's tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForTokenClassification

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=49152,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        num_labels=2,
    )
    Qwen2ForTokenClassification(config).float().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (download.model_path() / name).exists():
            shutil.copy(download.model_path() / name, folder)
    return folder
