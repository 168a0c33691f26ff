"""No recorded data is lost: every prefix of a recording opens, replays and resumes."""

from __future__ import annotations

import errno
import json
import os
import threading

import pytest

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tests.strategies.test_strategies import random_rule, random_script
from tts_tui import Plan, SearchTree, Solver, load, read
from tts_tui.budget import Budget
from tts_tui.cli import main
from tts_tui.errors import PlanError, RecordCorrupt, RecordError, RecordVersion, SinkError, UsageError
from tts_tui.tree import recording
from tts_tui.tree.events import Notice, SearchFinished, SearchStarted, StepFinished, decode, encode
from tts_tui.tree.recording import Recorder, Recording

FOREIGN = b'{"event":"step_finished","node":7,"ids":[],"text":"","finish":"eos","usage":{}}\n'
SCRIPT, RULE = random_script(7, 6), random_rule(7, 40)


def path_script(path, draw):
    """Return a step that depends on `draw` only if it is the first: a sample resumed midway gets new random numbers."""
    return SCRIPT(path, 0 if path else draw)


PLANS = [
    Plan(strategy=name, n=8, m=4, max_depth=14, variant=variant)
    for name in ("best-of-n", "beam", "dvts")
    for variant in ("paper", "search-and-learn")
]


def picture(tree):
    """Return the complete content of a tree as plain values."""
    nodes = [
        (
            n.id,
            n.parent and n.parent.id,
            n.slot,
            n.group,
            n.ids and list(n.ids),
            n.text,
            n.state,
            n.finish,
            n.score,
            n.usage,
            n.merged_into,
            n.pruned,
            n.why,
            n.solved,
            n.answer,
        )
        for n in tree.nodes
    ]
    return nodes, tree.counts.as_tuple(), [n.id for n in tree.solutions], tree.finished, tree.seconds


def scripted(plan):
    return ScriptedPolicy(path_script if plan.strategy == "best-of-n" else SCRIPT, piece=3)


async def record(path, plan):
    async with Solver(scripted(plan), ScriptedPRM(RULE)) as solver:
        return await solver.solve("p", plan, record=path)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.strategy}-{plan.variant}")
async def test_a_replay_is_the_same_bit_for_bit(plan, tmp_path):
    result = await record(tmp_path / "run.jsonl", plan)
    assert picture(load(tmp_path / "run.jsonl")) == picture(result.tree)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.strategy}-{plan.variant}")
async def test_every_prefix_resumes_to_the_same_answer_without_asking_again(plan, tmp_path):
    whole = tmp_path / "whole.jsonl"
    result = await record(whole, plan)
    lines = whole.read_bytes().splitlines(keepends=True)
    for end in range(1, len(lines), max(1, len(lines) // 25)):
        path = tmp_path / f"{end}.jsonl"
        path.write_bytes(b"".join(lines[:end]) + lines[end][: len(lines[end]) // 2])
        had = sum(isinstance(decode(line), StepFinished) for line in lines[:end])
        async with Solver(scripted(plan), ScriptedPRM(RULE)) as solver:
            resumed = await solver.resume(path)
        assert (resumed.answer, resumed.reason) == (result.answer, result.reason)
        assert [tally.weight for tally in resumed.votes] == [tally.weight for tally in result.votes]
        new = sum(node.state == "done" for node in resumed.tree.nodes[1:]) - had
        assert new == sum(node.state == "done" for node in result.tree.nodes[1:]) - had
        assert picture(load(path)) == picture(resumed.tree)


async def test_a_search_that_ran_out_of_budget_goes_on_with_a_larger_one(tmp_path):
    path = tmp_path / "run.jsonl"
    plan = PLANS[0].replace(budget=Budget(tokens=60))
    assert (await record(path, plan)).reason == "budget"
    async with Solver(policy := ScriptedPolicy(SCRIPT), ScriptedPRM(RULE)) as solver:
        with pytest.raises(PlanError, match="60 tokens is spent already in this recording: give a larger one"):
            await solver.resume(path)
        with pytest.raises(PlanError, match="time limit of 1e-09 s is reached already"):
            await solver.resume(path, budget=Budget(seconds=1e-9))
        result = await solver.resume(path, budget=Budget())
        assert result.reason == "solved"
        before = len(policy.requests)
        assert (await solver.resume(path)).answer == result.answer
    assert len(policy.requests) == before
    assert sum(isinstance(event, SearchFinished) for event in read(path)) == 2


class Disk:
    """A file on a disk that is full after `size` bytes."""

    def __init__(self, file, size):
        self.file, self.left = file, size

    def write(self, data):
        if len(data) > self.left:
            self.file.write(data[: self.left])
            self.left = 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.left -= len(data)
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.fixture(params=[0, 300, 2000])
def small_disk(request, monkeypatch):
    """Limit the disk space of recordings to a number of bytes."""
    begin = Recorder.__init__

    def small(self, *arguments, **options):
        begin(self, *arguments, **options)
        self._file = Disk(self._file, request.param)

    monkeypatch.setattr(Recorder, "__init__", small)
    return request.param


async def test_a_full_disk_stops_the_recording_and_not_the_search(tmp_path, small_disk):
    path, heard = tmp_path / "run.jsonl", []
    async with Solver(scripted(PLANS[2]), ScriptedPRM(RULE)) as solver:
        result = await solver.solve("p", PLANS[2], record=path, sinks=[heard.append])
    assert result.answer is not None
    (notice,) = [event for event in heard if isinstance(event, Notice)]
    assert notice.warning and path.name in notice.message and "No space left on device" in notice.message
    assert isinstance(heard[-1], SearchFinished)
    kept = list(read(path)) if small_disk > 1000 else []
    assert kept == heard[: len(kept)] and bool(kept) == (small_disk > 1000)


async def test_a_real_full_device_is_survived(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    recorder = Recorder(tmp_path / "run.jsonl")
    recorder._file.close()
    recorder._file = open("/dev/full", "wb")  # noqa: SIM115
    policy = ScriptedPolicy(SCRIPT)
    async with Solver(policy, ScriptedPRM(RULE)) as solver:
        result = await solver.solve("p", PLANS[0], sinks=[recorder])
    recorder.close()
    assert result.answer is not None
    assert len(result.tree.notices) == 1


async def test_a_search_that_a_listener_ends_is_recorded_to_its_end_and_resumes(tmp_path):
    path, heard = tmp_path / "run.jsonl", []

    def listen(event):
        heard.append(event)
        if len(heard) == 20:
            raise KeyError("x")

    async with Solver(scripted(PLANS[2]), ScriptedPRM(RULE)) as solver:
        with pytest.raises(SinkError):
            await solver.solve("p", PLANS[2], record=path, sinks=[listen])
        kept = list(read(path))
        assert kept[:20] == heard and kept[-1].reason == "failed"
        resumed = await solver.resume(path)
        assert resumed.answer == (await solver.solve("p", PLANS[2])).answer


def header(**changes):
    event = SearchStarted(
        problem="p", plan=Plan(), policy=ScriptedPolicy(SCRIPT).info, prm=None, prompt_ids=(1,), version="9", created=""
    )
    return json.dumps({**json.loads(encode(event)), **changes}).encode() + b"\n"


def step(number):
    """Return a finished step, one of whose ids is `number`."""
    begun = b'{"event":"step_started","node":1,"parent":0,"slot":0}\n'
    whole = {"event": "step_finished", "node": 1, "ids": [7, number], "text": "", "finish": "eos", "usage": {}}
    return begun + json.dumps(whole).encode() + b"\n"


@pytest.mark.parametrize("number", [-1, 2**31, 2**63, 2**70, 1.5])
@pytest.mark.parametrize("command", ["replay", "resume"])
def test_a_recording_with_a_number_that_is_no_token_id_is_refused_in_a_sentence(command, number, tmp_path, capsys):
    for name, content, line in (
        ("prompt", header(prompt_ids=[1, number]) + step(7), "line 1"),
        ("step", header() + step(number), "line 3"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(RecordCorrupt, match=line):
            load(path)
        assert main.run([command, str(path), "--display", "none"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("tts-tui: ") and err.count("\n") == 1 and line in err


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        (b"", RecordCorrupt, "empty"),
        (b"hello\n", RecordCorrupt, "first line is no event"),
        (b"\x89PNG\x00\xff\xfe\n", RecordCorrupt, "first line is no event"),
        (b'{"a": 1}\n', RecordCorrupt, "no event"),
        (b'{"event": "notice", "message": "x"}\n', RecordCorrupt, "begins with 'notice'"),
        (b'{"event": "search_star', RecordCorrupt, "no whole line"),
        (header(format=99), RecordVersion, "update tts-tui"),
        (header() + b"{broken}\n" + b"{}\n", RecordCorrupt, "line 2"),
        (
            header() + FOREIGN,
            RecordCorrupt,
            "does not exist",
        ),
        (header() + b'{"event":"step_started","node":5,"parent":0,"slot":0}\n', RecordCorrupt, "events are missing"),
        (header() + b'{"event":"step_started","node":1,"parent":-1,"slot":0}\n', RecordCorrupt, "does not exist"),
        (header() + header(), RecordCorrupt, "second search_started"),
    ],
)
def test_what_is_no_recording_is_said_in_a_sentence(content, error, says, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(error, match=says) as caught:
        load(path)
    assert caught.value.exit_code == 2


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path / "none")
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path)


def test_a_recording_is_never_overwritten(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists already"):
        Recorder(path)
    with pytest.raises(UsageError, match="cannot write"):
        Recorder(tmp_path / "no" / "folder")
    assert path.read_bytes() == b"precious"


def test_two_writers_are_kept_apart(tmp_path):
    with Recorder(tmp_path / "run.jsonl"), pytest.raises(RecordError, match="another process"):
        Recorder(tmp_path / "run.jsonl", resume=True)


async def test_a_recording_of_other_models_is_not_resumed(tmp_path):
    path = tmp_path / "run.jsonl"
    await record(path, PLANS[0].replace(budget=Budget(tokens=40)))
    policy = ScriptedPolicy(SCRIPT)
    policy.info = type(policy.info)("other", 1, 1)
    async with Solver(policy, ScriptedPRM(RULE)) as solver:
        with pytest.raises(UsageError, match="made with the policy scripted, not other"):
            await solver.resume(path, budget=Budget())


def test_a_million_character_line_reads_back(tmp_path):
    tree = SearchTree.fold([decode(header()[:-1])])
    assert tree.start.problem == "p"


@pytest.fixture
def reads(monkeypatch):
    """Record the threads in which a file was read."""
    threads = []
    read = recording.read

    def watched(path):
        threads.append(threading.current_thread())
        return read(path)

    monkeypatch.setattr(recording, "read", watched)
    return threads


@pytest.mark.parametrize("complete", [False, True])
async def test_a_resumption_reads_the_file_once_and_not_on_the_event_loop(complete, tmp_path, reads):
    path = tmp_path / "run.jsonl"
    await record(path, PLANS[0] if complete else PLANS[0].replace(budget=Budget(tokens=60)))
    async with Solver(ScriptedPolicy(SCRIPT), ScriptedPRM(RULE)) as solver:
        result = await solver.resume(path, budget=Budget())
    assert result.reason == "solved"
    assert len(reads) == 1 and reads[0] is not threading.current_thread()


async def test_what_was_read_already_is_not_read_again(tmp_path, reads):
    path = tmp_path / "run.jsonl"
    await record(path, PLANS[2].replace(budget=Budget(tokens=60)))
    found = Recording.load(path)
    tree, mine = found.tree(), SearchTree()
    async with Solver(scripted(PLANS[2]), ScriptedPRM(RULE)) as solver:
        result = await solver.resume(found, budget=Budget(), tree=mine)
    assert result.tree is mine and len(mine) > len(tree) == len(found.tree())
    assert len(reads) == 1
    assert picture(load(path)) == picture(mine)


async def test_a_recording_that_somebody_else_has_written_since_it_was_read_is_not_resumed(tmp_path):
    path = tmp_path / "run.jsonl"
    await record(path, PLANS[0].replace(budget=Budget(tokens=60)))
    found = Recording.load(path)
    async with Solver(ScriptedPolicy(SCRIPT), ScriptedPRM(RULE)) as solver:
        await solver.resume(path, budget=Budget())
        before = path.read_bytes()
        with pytest.raises(RecordError, match="another process"):
            await solver.resume(found, budget=Budget())
    assert path.read_bytes() == before
