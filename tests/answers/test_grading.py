"""Answers are graded as a person would grade them, in any order; a worker process never outlives its use."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_tui.answers import grading, symbolic
from tts_tui.answers.canonical import canonical, extract
from tts_tui.answers.equivalence import AnswerClasses
from tts_tui.answers.grading import Grader, compare_canonical
from tts_tui.answers.grading_worker import serve
from tts_tui.answers.grouping import Groups
from tts_tui.answers.structure import agree
from tts_tui.answers.symbolic import Sympy

SAME = [
    ("0.5", "\\frac12"),
    ("0.5", "\\dfrac{1}{2}"),
    ("\\frac{3}{2}", "1\\frac12"),
    ("1,000,000", "10^6"),
    ("10{,}000", "10^4"),
    ("1.5 \\times 10^{-3}", "0.0015"),
    ("1e3", "1000"),
    ("0.\\overline{3}", "\\frac13"),
    ("0.1\\overline{6}", "\\frac16"),
    ("2^{10}", "1024"),
    ("5!", "120"),
    ("\\binom{5}{2}", "10"),
    ("\\sqrt{2}/2", "\\frac{1}{\\sqrt2}"),
    ("\\sqrt{242}", "11\\sqrt2"),
    ("\\sqrt[3]{8}", "2"),
    ("\\log_2 8", "3"),
    ("\\lfloor 2.5\\rfloor", "2"),
    ("2^{2005}", "2\\cdot 2^{2004}"),
    ("e^{i\\pi}", "-1"),
    ("\\sqrt{-4}", "2i"),
    ("3+4i", "4i+3"),
    ("x^2+2x+1", "(x+1)^2"),
    ("\\frac{x^2-1}{x-1}", "x+1"),
    ("\\sin^2 x+\\cos^2 x", "1"),
    ("\\pi \\, r^2", "r^2\\pi"),
    ("4^{x+1}", "2^{2x+2}"),
    ("|x|", "\\sqrt{x^2}"),
    ("xy", "yx"),
    ("5\\sqrt{3}\\text{ cm}", "5\\sqrt3"),
    ("18\\pi", "18 \\pi \\text{ cm}^2"),
    ("12 square units", "12"),
    ("90^\\circ", "90"),
    ("50\\%", "50"),
    ("\\$1{,}000", "1000"),
    ("x=5", "5"),
    ("f(x)=x^2", "x^2"),
    ("y=2x+1", "y-2x=1"),
    ("y=x+1", "x=y-1"),
    ("x+y=3", "2x+2y=6"),
    ("2+3=5", "5"),
    ("5=x", "x=5"),
    ("\\sqrt{16}=x", "4"),
    ("2,-2", "\\pm 2"),
    ("1 \\pm \\sqrt{2}", "1-\\sqrt2, 1+\\sqrt2"),
    ("1,-2", "-2, 1"),
    ("2 \\text{ or } 3", "3,2"),
    ("x=1,y=2", "y=2,x=1"),
    ("x=1 \\text{ or } x=-2", "1,-2"),
    ("\\{1,\\sqrt4\\}", "\\{2, 1\\}"),
    ("\\{1,2\\}", "2,1"),
    ("\\{5\\}", "5"),
    ("\\{\\}", "\\varnothing"),
    ("(\\frac{1}{\\sqrt2}, 1)", "(\\frac{\\sqrt2}{2},1)"),
    ("\\langle 1,\\sqrt4\\rangle", "(1,2)"),
    ("\\left[-\\frac{1}{2},\\sqrt{4}\\right)", "[-0.5,2)"),
    ("x>5", "(5,\\infty)"),
    ("x \\le \\sqrt4", "(-\\infty, 2]"),
    ("5<x", "x>5"),
    ("2\\le x<3", "[2,3)"),
    ("a\\le b+1\\le c", "c\\ge 1+b\\ge a"),
    ("x \\in [1,2]", "[1,2]"),
    ("(-\\infty, 3) \\cup (5, \\infty)", "(5,\\infty) \\cup (-\\infty,3)"),
    ("x<1 \\text{ or } x>2", "(-\\infty,1)\\cup(2,\\infty)"),
    ("\\begin{pmatrix}1/2\\\\2\\end{pmatrix}", "\\begin{bmatrix}0.5\\\\ \\frac42\\end{bmatrix}"),
    ("\\text{Friday}", "Friday"),
    ("\\text{No solution}", "no solution"),
    ("\\textbf{(A)}", "A"),
    ("(A)", "\\text{A}"),
    ("1:2", "\\frac12"),
    ("1:2:3", "1:\\sqrt4:3"),
    ("2516_8", "2516"),
    ("\\textbf{(C)}\\ 7", "C"),
    ("(-\\infty,\\infty)", "\\mathbb{R}"),
    ("\\text{all real numbers}", "x \\in \\mathbb{R}"),
    ("100, 200", "200, 100"),
    ("10,\\!000", "10000"),
    ("10*2+x", "x+20"),
]

DIFFERENT = [
    ("1", "1,-2"),
    ("3", "3, 5, 7"),
    ("5000", "50"),
    ("0.5", "50"),
    ("50\\%", "0.5"),
    ("10000", "10001"),
    ("200000", "2000"),
    ("(1,2]", "[1,2)"),
    ("[1,\\sqrt4]", "(1,2)"),
    ("(1,2)", "(2,1)"),
    ("(1,\\sqrt4)", "1,2"),
    ("\\sqrt2", "\\sqrt2, \\sqrt3"),
    ("\\sqrt2,\\sqrt2", "\\sqrt2,\\sqrt3"),
    ("0.333333", "\\frac13"),
    ("1.414214", "\\sqrt2"),
    ("3.14159265", "\\pi"),
    ("e^{\\pi\\sqrt{163}}", "262537412640768744"),
    ("2^{2005}", "2^{2005}+1"),
    ("9^{200}", "9^{200}+1"),
    ("|x|", "x"),
    ("x", "X"),
    ("AB", "BA"),
    ("A+1", "a+1"),
    ("p-q", "q-p"),
    ("Friday", "dayFri"),
    ("\\text{Friday}", "\\text{Monday}"),
    ("(A)", "(B)"),
    ("A", "5"),
    ("no solution", "0"),
    ("10_2", "10_3"),
    ("2516_8", "2517"),
    ("x=2,y=3", "x=3,y=2"),
    ("x+y=3", "x-y=3"),
    ("x+y=3", "3"),
    ("5=x", "x"),
    ("a<x=5", "5"),
    ("x>5", "[5,\\infty)"),
    ("x>5", "x<5"),
    ("1:2:3", "1:2"),
    ("x^2", "x^3"),
    ("i", "j"),
    ("\\infty", "-\\infty"),
    ("(1,2)\\cup(3,4)", "(1,2)"),
    ("\\begin{pmatrix}1\\\\x\\end{pmatrix}", "\\begin{pmatrix}1&x\\end{pmatrix}"),
    ("\\begin{vmatrix}1&x\\\\2&y\\end{vmatrix}", "\\begin{pmatrix}1&x\\\\2&y\\end{pmatrix}"),
    ("\\frac{\\sqrt2", "\\sqrt2"),
    ("\\sqrt2+", "\\sqrt2"),
    ("", ""),
    ("", "x+1"),
    ("\\{\\}", "0"),
    ("100, 200", "100200"),
    ("(C) 7", "D"),
    ("(C) 7", "(C) 8"),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_what_means_the_same_is_the_same_in_any_order(left, right):
    assert agree(left, right, Sympy())
    assert agree(right, left, Sympy())
    assert compare_canonical(canonical(left), canonical(right)) in (True, None)


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_what_differs_differs_in_any_order(left, right):
    assert not agree(left, right, Sympy())
    assert not agree(right, left, Sympy())
    assert compare_canonical(canonical(left), canonical(right)) in (False, None)


class Unasked:
    def equal(self, left, right):
        raise AssertionError("the algebra was asked")

    proportional = equal


@pytest.mark.parametrize(
    ("left", "right"), [("Friday", "Monday"), ("1,x", "1,x,2"), ("(1,x)", "[1,x)"), ("(x,1)", "5")]
)
def test_the_build_of_answers_is_compared_without_algebra(left, right):
    assert not agree(left, right, Unasked())


class Literal:
    """A comparison of expressions by their exact text."""

    def equal(self, left, right):
        return left.replace(" ", "") == right.replace(" ", "")

    proportional = equal


PIECES = [
    "x",
    "+",
    "1",
    ",",
    "(",
    ")",
    "[",
    "]",
    "\\{",
    "\\}",
    "=",
    "<",
    "\\le",
    "\\cup",
    " or ",
    "\\pm",
    "_2",
    ":",
    "&",
    "\\\\",
]
PIECES += ["\\begin{pmatrix}", "\\end{pmatrix}", "\\frac", "{", "}", "\\", "yes ", "\\text{"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.lists(st.sampled_from(PIECES), max_size=12))
def test_whatever_is_written_the_order_does_not_matter_and_all_is_like_itself(left, pieces):
    right = "".join(pieces)
    assert agree(left, right, Literal()) == agree(right, left, Literal())
    assert agree(left, left, Literal()) == (canonical(left) != "")


def test_lists_beyond_all_measure_are_not_compared():
    many = ",".join(f"x+{number}" for number in range(300))
    assert not agree(many, many.replace("x+7,", "x+8,"), Unasked())


@pytest.mark.parametrize(
    ("left", "right", "verdict"),
    [
        ("5", "5", True),
        ("5", "7", False),
        ("1,2", "1", False),
        ("(1,2)", "[1,2)", False),
        ("friday", "monday", False),
        ("A", "7", False),
        ("", "", False),
        ("x" * 3000, "y+1", False),
        ("x+1", "7", None),
        ("2^10", "1024", None),
        ("\\lbrace 1,2\\rbrace", "1,2", None),
    ],
)
def test_only_what_is_not_plain_needs_algebra(left, right, verdict):
    assert compare_canonical(left, right) is verdict
    assert compare_canonical(right, left) is verdict


def test_joined_answers_have_one_key_that_of_the_first():
    matching = AnswerClasses()
    matching.join("\\sqrt8", "2\\sqrt2")
    matching.join("x", "y")
    matching.join("2\\sqrt{2}", "\\sqrt4\\sqrt2")
    assert matching.key("\\sqrt{4}\\sqrt{2}") == matching.key("2\\sqrt2") == canonical("\\sqrt8")
    assert matching.key("5") == "5"
    matching.join("y", "x")  # a cycle would loop forever
    assert matching.key("y") == "x"


def test_a_worker_answers_pair_by_pair_and_calls_what_it_cannot_read_different():
    class Failing:
        def equal(self, left, right):
            raise RecursionError

        proportional = equal

    replies = []
    pairs = [("x+1", "1+x"), ("5", "5")]
    lines = io.StringIO("".join(json.dumps({"left": a, "right": b}) + "\n" for a, b in pairs))
    serve(lines, replies.append, Failing())
    assert replies == [{"same": False}, {"same": True}]


# -- with processes ----------------------------------------------------------------------------------------------------


async def test_plain_pairs_start_no_process(monkeypatch):
    async def start(*args, **settings):
        raise AssertionError("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    async with Grader() as grader:
        assert await grader.same("0.5", "\\frac12")
        assert not await grader.same("5", "7")
        assert await grader.group(["1", None, "Friday", "1.0", "", "\\text{friday}", "2"]) == [0, -1, 1, 0, -1, 1, 2]


@pytest.mark.slow
async def test_answers_are_grouped_by_worker_processes_and_pairs_are_asked_once():
    found = []
    answers = ["5", "\\sqrt8", None, "2\\sqrt2", "5.0", "x", "\\sqrt{4}\\sqrt{2}", "2\\sqrt2"]
    async with Grader() as grader:
        assert await grader.group(answers, lambda *pair: found.append(pair)) == [0, 1, -1, 1, 0, 2, 1, 1]
        assert found == [("\\sqrt8", "2\\sqrt2"), ("\\sqrt8", "\\sqrt{4}\\sqrt{2}")]
        await grader.close()
        grader._start_again = float("inf")  # no worker may be started now
        assert await grader.same("2\\sqrt2", "\\sqrt8")
        assert grader.unsettled == []


@pytest.mark.slow
@pytest.mark.parametrize("hostile", ["\\binom{10^9}{10^8}", "9^{9^{9^{9}}}", "(" * 900 + "x" + ")" * 900])
async def test_a_pair_that_takes_too_long_costs_its_process_and_nothing_else(hostile):
    async with Grader(workers=1, timeout=1.0) as grader:
        assert await grader.same(hostile, "\\pi") is not True
        grader._timeout = 60.0
        assert await grader.same("\\sqrt8", "2\\sqrt2")


class Spy:
    """A wrapper that records the processes that were started."""

    def __init__(self, monkeypatch):
        self.processes = []
        self._start = asyncio.create_subprocess_exec
        monkeypatch.setattr(asyncio, "create_subprocess_exec", self)

    async def __call__(self, *args, **settings):
        process = await self._start(*args, **settings)
        self.processes.append(process)
        return process


@pytest.mark.slow
async def test_a_cancelled_question_leaves_no_process(monkeypatch):
    spy = Spy(monkeypatch)
    asked = asyncio.Event()
    ask = grading._Worker.ask

    async def heard(self, *args):
        asyncio.get_running_loop().call_soon(asked.set)
        return await ask(self, *args)

    monkeypatch.setattr(grading._Worker, "ask", heard)
    async with Grader() as grader:
        question = asyncio.create_task(grader.same("\\binom{10^9}{10^8}", "\\pi"))
        await asked.wait()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        assert [process.returncode for process in spy.processes] == [-signal.SIGKILL]
        assert await grader.same("\\sqrt8", "2\\sqrt2")
    assert [process.returncode for process in spy.processes] == [-signal.SIGKILL] * 2


@pytest.mark.slow
async def test_a_grader_that_is_closed_over_a_question_still_ends_its_process(monkeypatch):
    spy = Spy(monkeypatch)
    grader = Grader()
    ask = grading._Worker.ask

    async def closing(self, *args):
        await grader.close()
        return await ask(self, *args)

    monkeypatch.setattr(grading._Worker, "ask", closing)
    assert await grader.same("\\sqrt8", "2\\sqrt2")
    assert [process.returncode for process in spy.processes] == [-signal.SIGKILL]


@pytest.mark.slow
async def test_processor_time_that_is_used_up_is_no_verdict(monkeypatch):
    spy = Spy(monkeypatch)
    async with Grader(workers=1, timeout=0.5) as grader:
        assert await grader.same("\\binom{10^9}{10^8}", "\\pi") is None
        assert grader.unsettled == [("\\binom{10^9}{10^8}", "\\pi")]
        assert [process.returncode for process in spy.processes] == [-signal.SIGPROF]


@pytest.mark.slow
async def test_a_worker_that_has_died_is_replaced(monkeypatch):
    spy = Spy(monkeypatch)
    async with Grader() as grader:
        assert await grader.same("\\sqrt8", "2\\sqrt2")
        os.kill(spy.processes[0].pid, signal.SIGKILL)
        assert await grader.same("\\sqrt{18}", "3\\sqrt2")
        await spy.processes[0].wait()
        assert await grader.same("\\sqrt{32}", "4\\sqrt2")
        assert grader.unsettled == []


@pytest.mark.slow
def test_a_worker_ends_with_whoever_started_it():
    worker = [sys.executable, "-m", "tts_tui.answers.grading_worker", "1"]
    with subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert json.loads(process.stdout.readline()) == {"ready": True}
        process.stdin.write(b'{"left": "\\\\binom{10^9}{10^8}", "right": "\\\\pi"}\n')
        process.stdin.close()  # as if its parent were killed while it computes
        assert process.wait(60) == -signal.SIGPROF


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ('print(\'{"error": "No module named math_verify"}\')', "No module named math_verify"),
        ("raise SystemExit(1)", "it died"),
    ],
)
async def test_without_math_verify_only_canonical_forms_decide_and_the_grader_says_so(monkeypatch, script, why):
    start = asyncio.create_subprocess_exec

    async def broken(*args, **settings):
        return await start(sys.executable, "-c", script, **settings)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", broken)
    async with Grader() as grader:
        assert await grader.same("\\sqrt8", "2\\sqrt2") is None
        assert why in grader.broken
        assert await grader.same("\\sqrt8", "\\sqrt{8}")
        assert grader.unsettled == [("2\\sqrt2", "\\sqrt8")]


# -- without a verdict -------------------------------------------------------------------------------------------------


class Workers:
    """A stand-in for worker processes.

    Attributes:
        replies: The results of the next questions: a verdict, or an error to raise. After these, all pairs are equal.
        refusals: The number of starts that fail before one succeeds.
        starts: The number of attempts to start a worker.
        asked: The pairs that reached a worker.
        now: The time of the grader's clock.
    """

    def __init__(self, monkeypatch):
        self.replies, self.refusals, self.starts, self.asked, self.now = [], 0, 0, [], 0.0
        self.is_alive = True
        monkeypatch.setattr(grading._Worker, "start", self.start)

    async def start(self, limit):
        self.starts += 1
        if self.refusals:
            self.refusals -= 1
            raise grading._Unavailable("Cannot allocate memory")
        return self

    async def ask(self, left, right, limit):
        self.asked.append((left, right))
        reply = self.replies.pop(0) if self.replies else True
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def kill(self):
        pass

    def grader(self):
        return Grader(workers=1, clock=lambda: self.now)


PAIR = ("\\sqrt8", "2\\sqrt2")


@pytest.fixture
def workers(monkeypatch):
    return Workers(monkeypatch)


@pytest.mark.parametrize("again", [True, False])
async def test_a_pair_without_a_verdict_is_not_remembered_as_different(workers, again):
    workers.replies = [grading._Lost("", again=again)] * (2 if again else 1)
    async with workers.grader() as grader:
        assert await grader.same(*PAIR) is None
        assert len(grader.unsettled) == 1
        assert await grader.same(*reversed(PAIR)) is True
        assert grader.unsettled == []
        asked = len(workers.asked)
        assert await grader.same(*PAIR) is True
        assert len(workers.asked) == asked


async def test_a_worker_that_dies_over_a_pair_costs_no_verdict_if_the_next_one_does_not(workers):
    workers.replies = [grading._Lost("it died"), False]
    async with workers.grader() as grader:
        assert await grader.same(*PAIR) is False
        assert (workers.starts, len(workers.asked), grader.unsettled) == (2, 2, [])


async def test_a_pair_is_compared_in_vain_so_often_and_no_oftener(workers):
    workers.replies = [grading._Lost("", again=False)] * 100
    async with workers.grader() as grader:
        for _ in range(10):
            assert await grader.same(*PAIR) is None
        assert len(workers.asked) == grading.TRIES
        assert await grader.group([*PAIR, "\\sqrt8"]) == [0, 1, 0]
        workers.replies = []
        assert await grader.same("x+1", "1+x")  # tries are counted separately for each pair


async def test_a_worker_that_could_not_be_started_is_started_later(workers):
    workers.refusals = 2
    async with workers.grader() as grader:
        assert await grader.same(*PAIR) is None
        assert "Cannot allocate memory" in grader.broken
        assert await grader.same(*PAIR) is None
        assert workers.starts == 1  # it is not tried again for every pair
        workers.now = 1.0
        assert await grader.same(*PAIR) is None
        workers.now = 2.0
        assert await grader.same(*PAIR) is None
        assert workers.starts == 2
        workers.now = 3.0
        assert await grader.same(*PAIR) is True
        assert (workers.starts, grader.broken, grader.unsettled) == (3, "", [])


async def test_a_machine_on_which_no_worker_starts_is_asked_once_a_minute_at_most(workers):
    workers.refusals = 10**6
    async with workers.grader() as grader:
        for second in range(3600):
            workers.now = float(second)
            assert await grader.same(*PAIR) is None
    assert workers.starts < 70


async def test_a_machine_that_starts_no_process_is_told_of(monkeypatch):
    async def refuse(*args, **settings):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    async with Grader() as grader:
        assert await grader.same(*PAIR) is None
        assert "Cannot allocate memory" in grader.broken


def test_a_memory_that_is_full_is_no_verdict():
    class Full:
        def equal(self, left, right):
            raise MemoryError

        proportional = equal

    replies = []
    serve(io.StringIO(json.dumps({"left": "x+1", "right": "1+x"}) + "\n"), replies.append, Full())
    assert replies == [{"same": None}]


@pytest.mark.slow
def test_an_expression_that_there_was_no_room_to_read_is_read_later(monkeypatch):
    def full(*args, **settings):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(symbolic.math_verify, "parse", full)
        with pytest.raises(MemoryError):
            symbolic.read("\\sqrt{77}")
    assert symbolic.read("\\sqrt{77}") is not None


LETTERS = [f"x+{number}" for number in range(8)]


@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=8),
    unknown=st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20),
    order=st.permutations(range(8)),
    at_once=st.integers(1, 3),
)
async def test_groups_are_the_chains_of_known_pairs_in_any_order(labels, unknown, order, at_once):
    def verdict(one, other):
        return None if {(one, other), (other, one)} & unknown else labels[one] == labels[other]

    async def same(left, right):
        return verdict(LETTERS.index(left), LETTERS.index(right))

    places = [place for place in order if place < len(labels)]
    groups, matching = Groups([LETTERS[place] for place in places]), AnswerClasses()
    await groups.compare(same, at_once, matching.join)
    expected = {place: place for place in places}
    for _ in places:  # the simple way: propagate the smallest name over all known pairs
        for left in places:
            for right in places:
                if verdict(left, right):
                    name = min(expected[left], expected[right])
                    expected[left] = expected[right] = name
    for (one, left), (other, right) in itertools.combinations(zip(places, groups.numbers, strict=True), 2):
        assert (left == right) == (expected[one] == expected[other])
        assert (left == right) == (matching.key(LETTERS[one]) == matching.key(LETTERS[other]))


# -- on real data ------------------------------------------------------------------------------------------------------


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.shared
@pytest.mark.parametrize("name", ["math500", "aime24", "amc23"])
async def test_every_gold_answer_is_itself_and_what_its_own_solution_says(shared, name):
    async with Grader() as grader:
        for row in rows(shared / "data" / f"{name}.jsonl"):
            gold = str(row.get("answer") or row.get("extracted_groundtruth"))
            assert await grader.same(gold, gold)
            if name == "math500":
                assert await grader.same(extract(row["solution"]) or "", gold)


@pytest.mark.shared
@pytest.mark.slow
async def test_recorded_samples_are_judged_as_recorded_but_for_one_that_was_recorded_wrongly(shared):
    records = json.loads((shared / "data" / "math500-samples.json").read_text("utf-8"))["records"]
    differs = set()
    async with Grader() as grader:
        for record in records:
            for trace in record["traces"]:
                answer = extract(trace["text"])
                if await grader.same(answer or "", record["gold"]) != trace["correct"]:
                    differs.add((answer, record["gold"], trace["correct"]))
        assert grader.unsettled == []
    assert differs == {("\\$78", "78", False)}


@pytest.mark.shared
@pytest.mark.slow
async def test_no_two_gold_answers_of_math_500_that_differ_are_taken_for_the_same(shared):
    golds = {canonical(row["answer"]): row["answer"] for row in rows(shared / "data" / "math500.jsonl")}
    hard = [gold for form, gold in golds.items() if compare_canonical(form, "0") is None]
    assert len(hard) > 50
    async with Grader() as grader:
        assert await grader.group(hard) == list(range(len(hard)))
        assert grader.unsettled == []
