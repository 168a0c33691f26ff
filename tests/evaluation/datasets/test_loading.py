"""Data sets: what is found, read, left out and refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tts_tui.errors import UnknownName, UsageError
from tts_tui.evaluation.datasets import data_files, loading
from tts_tui.evaluation.datasets.families import SPLITS, split_of
from tts_tui.evaluation.datasets.loading import Columns, Item, family_items, load, read_file, readable


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_families_come_in_turn_and_a_larger_limit_only_adds():
    names = ["add0", "lin", "mixed"]
    seven, ten = family_items(names, "test", 7), family_items(names, "test", 10)
    assert [item.family for item in seven] == ["add0", "lin", "mixed"] * 2 + ["add0"]
    assert [item.id for item in seven[:4]] == ["test-add0-0000", "test-lin-0000", "test-mixed-0000", "test-add0-0001"]
    assert ten[:7] == seven


def test_problems_of_families_can_be_passed_over():
    (item,) = family_items(["add0"], "test", 1, skip=8)
    assert item == family_items(["add0"], "test", 9)[8]


def test_a_family_that_has_no_more_leaves_the_turns_to_the_others():
    found = load("families:mul1,lin", limit=40)  # of mul1 there are few
    few = sum(item.family == "mul1" for item in found.items)
    assert 0 < few < 20 and len(found.items) == 40
    assert load("families:mul1", limit=41).notes == (f"the families have only {few} test problems, fewer than 41",)


def test_without_a_limit_there_are_some_of_each_family():
    found = load("families:lin,add1")
    assert len(found.items) == 2 * loading.FEW and (found.name, found.source) == ("families", "lin,add1")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_splits_never_mix(split):
    assert split in SPLITS
    for item in load("families:add1,word2", split=split, limit=20).items:
        assert split_of(item.family, item.problem) == split and item.id.startswith(f"{split}-")


def test_families_that_there_are_not_are_named():
    with pytest.raises(UnknownName, match="unknown problem family 'lim': did you mean 'lin'"):
        load("families:lim")
    with pytest.raises(UsageError, match="the family lin is named twice"):
        load("families:lin,add0,lin")


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"problem": "p", "answer": "5"}, "5"),
        ({"question": "p", "answer": "2 and 3 are 5\n#### 5"}, "5"),
        ({"prompt": "p", "extracted_groundtruth": 27.0}, "27"),
        ({"problem": "p", "answer": 2.5}, "2.5"),
        ({"problem": "p", "answer": 12345678901234567890}, "12345678901234567890"),
        ({"problem": "p", "answer": ["7"]}, "7"),
        ({"problem": "p", "answer": ["7", "8"]}, "7, 8"),
        ({"problem": "p", "answer": "we see \\boxed{8}"}, "8"),
        ({"problem": "p", "answer": 0}, "0"),
    ],
)
def test_answers_are_found_under_all_their_names(tmp_path, row, answer):
    (item,) = read_file(written(tmp_path / "own.jsonl", row)).items
    assert item == Item("own-0000", "p", answer)


SOLUTION = "First we see that x = 1.\n\nThen we see that the answer is \\boxed{2}."
LAYOUTS = {
    "MATH-500": (
        {"problem": "p", "solution": SOLUTION, "answer": "2", "subject": "Algebra", "level": 3, "unique_id": "a/1"},
        Item("a/1", "p", "2", "3", "Algebra"),
    ),
    "AIME 24": (
        {"id": 60, "problem": "p", "solution": SOLUTION, "answer": "033", "url": "u", "year": "2024"},
        Item("60", "p", "033"),
    ),
    "AIME 24, Maxwell-Jia": (
        {"ID": "2024-I-1", "Problem": "p", "Solution": SOLUTION, "Answer": 33},
        Item("2024-I-1", "p", "33"),
    ),
    "AIME 25 and 26": (
        {"problem_idx": 7, "answer": 70, "problem": "p", "problem_type": ["Number Theory"]},
        Item("7", "p", "70"),
    ),
    "AMC 23": ({"id": 0, "question": "p", "answer": 27.0, "url": "u"}, Item("0", "p", "27")),
    "HMMT and BRUMO": (
        {"problem_idx": 1, "answer": "\\frac{1}{2}, 3", "problem_type": ["Algebra", "Geometry"], "problem": "p"},
        Item("1", "p", "\\frac{1}{2}, 3"),
    ),
    "GSM8K": ({"question": "p", "answer": "She has 16 - 3 = 13.\n#### 1,013"}, Item("own-0000", "p", "1,013")),
    "GSM8K-Platinum": (
        {"question": "p", "answer": "2 * 3 = <<2*3=6>>6\n#### 6", "cleaning_status": "consensus"},
        Item("own-0000", "p", "6"),
    ),
    "OlympiadBench": (
        {
            "id": 1606, "question": "p", "solution": [SOLUTION], "final_answer": ["2"], "context": None,
            "is_multiple_answer": False, "unit": None, "answer_type": "Numerical", "error": None, "subfield": "Algebra",
        },
        Item("1606", "p", "2", subject="Algebra"),
    ),
    "OlympiadBench, several answers": (
        {"question": "p", "solution": [SOLUTION], "final_answer": ["$1$", "$-2$"], "is_multiple_answer": True},
        Item("own-0000", "p", "$1$, $-2$"),
    ),
    "OlympiadBench, within an error": (
        {"question": "p", "final_answer": ["5.13"], "is_multiple_answer": False, "unit": "cm", "error": "1e-2"},
        Item("own-0000", "p", "5.13", tolerance=0.01),
    ),
    "Minerva": ({"question": "p", "answer": "2.5 \\mathrm{~cm}"}, Item("own-0000", "p", "2.5 \\mathrm{~cm}")),
    "Omni-MATH": (
        {"domain": ["Algebra"], "difficulty": 8.0, "problem": "p", "solution": SOLUTION, "answer": "2", "source": "s"},
        Item("own-0000", "p", "2"),
    ),
    "DeepMath": (
        {"question": "p", "final_answer": "Yes", "difficulty": 6.0, "topic": "t", "r1_solution_1": SOLUTION},
        Item("own-0000", "p", "Yes"),
    ),
    "MMLU-Pro": (
        {
            "question_id": 70, "question": "p", "options": ["one", "two", "three"], "answer": "C", "answer_index": 2,
            "cot_content": "", "category": "math", "src": "s",
        },
        Item("70", "p\n\nA. one\nB. two\nC. three", "C", subject="math"),
    ),
    "BeyondAIME": ({"problem": "p", "answer": "2"}, Item("own-0000", "p", "2")),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_public_data_sets_are_read_as_they_are(tmp_path, name):
    row, item = LAYOUTS[name]
    found = read_file(written(tmp_path / "own.jsonl", row))
    assert found.items == (item,) and found.notes == ()


def test_the_options_of_gpqa_always_have_the_same_letters(tmp_path):
    row = {
        "Question": "p", "Correct Answer": "seven ", "Incorrect Answer 1": "one", "Incorrect Answer 2": "two",
        "Incorrect Answer 3": "three", "Pre-Revision Correct Answer": "eight", "Subdomain": "Optics",
        "Writer's Difficulty Estimate": "hard",
    }  # fmt: skip
    (item,) = read_file(written(tmp_path / "own.jsonl", row)).items
    asked, _, options = item.problem.partition("\n\n")
    shown = dict(line.split(". ") for line in options.splitlines())
    assert asked == "p" and list(shown) == ["A", "B", "C", "D"] and shown[item.answer] == "seven"
    assert set(shown.values()) == {"one", "two", "three", "seven"} and item.subject == "Optics"
    backwards = dict(reversed(row.items()))
    assert read_file(written(tmp_path / "own.jsonl", backwards)).items == (item,)
    answers = [{**row, "Question": f"question {number}"} for number in range(20)]
    letters = {item.answer for item in read_file(written(tmp_path / "own.jsonl", *answers)).items}
    assert letters == {"A", "B", "C", "D"}


@pytest.mark.parametrize("solution", [SOLUTION, ["long text"], [SOLUTION], "2", 4.0])
def test_a_solution_is_never_taken_for_an_answer(tmp_path, solution):
    path = written(tmp_path / "own.jsonl", {"id": 1, "problem": "p", "solution": solution})
    with pytest.raises(UsageError, match=r"no answer column.* it has id, problem, solution; .*--answer-column"):
        read_file(path)
    blank = written(tmp_path / "own.jsonl", {"problem": "p", "solution": solution, "answer": ""}, RIGHT)
    assert read_file(blank).left_out == ("own-0000",)


RIGHT = {"problem": "q", "answer": "2"}


def test_the_box_of_a_solution_is_the_answer_where_the_user_says_so(tmp_path):
    path = written(
        tmp_path / "own.jsonl", {"problem": "p", "solution": SOLUTION, "level": "Level 1", "type": "Algebra"}
    )
    (item,) = read_file(path, columns=Columns(answer="Solution")).items
    assert item.answer == "2"


@pytest.mark.parametrize(
    ("row", "names", "option"),
    [
        ({"problem": "p", "answer": "1", "expected_answer": "2"}, "answer and expected_answer", "--answer-column"),
        ({"problem": "p", "Answer": "1", "answer": "1"}, "Answer and answer", "--answer-column"),
        ({"problem": "p", "Question": "q", "answer": "1"}, "problem and Question", "--problem-column"),
    ],
)
def test_a_file_with_several_candidates_is_asked_back(tmp_path, row, names, option):
    path = written(tmp_path / "own.jsonl", row)
    with pytest.raises(UsageError, match=f"{names}: choose with {option}"):
        read_file(path)
    for name in names.split(" and "):
        chosen = Columns(name, None) if option == "--problem-column" else Columns(None, name)
        (item,) = read_file(path, columns=chosen).items
        assert row[name] == (item.problem if option == "--problem-column" else item.answer)


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    path = written(tmp_path / "own.jsonl", {"task": "p", "result": "1"})
    with pytest.raises(UsageError, match=r"its columns are task, result, .*--problem-column"):
        read_file(path)
    with pytest.raises(UsageError, match=r"'resul': did you mean 'result'\? known are result, task"):
        read_file(path, columns=Columns("task", "resul"))
    assert read_file(path, columns=Columns("Task", "Result")).items == (Item("own-0000", "p", "1"),)


def test_columns_are_for_files_only():
    with pytest.raises(UsageError, match="--answer-column is for a data file, not for problem families"):
        load("families:lin", columns=Columns(answer="answer"))


def test_answers_that_may_be_solutions_are_told(tmp_path):
    rows = [{"problem": "p", "answer": "one\nand two make\n3"}, {"problem": "q", "answer": "x" * 301}, RIGHT]
    matrix = {"problem": "r", "answer": "\\begin{pmatrix}\n1 \\\\\n2\n\\end{pmatrix}"}
    found = read_file(written(tmp_path / "own.jsonl", *rows, matrix))
    assert any("may be solutions" in note and note.count("own-000") == 2 for note in found.notes)


def test_ids_levels_and_subjects_are_taken_over(tmp_path):
    rows = [
        {"unique_id": "a/b.json", "problem": "p", "answer": "1", "level": "Level 3", "subject": "Algebra"},
        {"id": 7, "problem": "q", "answer": "2", "level": 4, "type": "Geometry"},
    ]
    one, two = read_file(written(tmp_path / "own.jsonl", *rows)).items
    assert one == Item("a/b.json", "p", "1", "Level 3", "Algebra")
    assert two == Item("7", "q", "2", "4", "Geometry")


def test_of_several_texts_the_first_that_says_something_is_the_problem(tmp_path):
    (found,) = read_file(written(tmp_path / "own.jsonl", {"problem": " ", "question": "2+2", "answer": "4"})).items
    assert found.problem == "2+2"


def test_problems_without_an_answer_are_listed_and_the_others_go_on(tmp_path):
    rows = [{"problem": " ", "answer": "4"}, {"problem": "q", "answer": "2"}, {"problem": "r", "solution": "long"}]
    found = read_file(written(tmp_path / "own.jsonl", *rows))
    assert [item.id for item in found.items] == ["own-0001"] and found.left_out == ("own-0000", "own-0002")
    assert found.notes == ("2 of 3 problems have no text or no answer and are left out: own-0000, own-0002",)


def test_a_file_without_any_answer_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has no problem with a text and an answer \(2 without\)"):
        read_file(written(tmp_path / "own.jsonl", {"problem": "p"}, {"problem": "q", "answer": True}))


def test_ids_that_occur_twice_are_named(tmp_path):
    rows = [{"id": name, "problem": name, "answer": "1"} for name in ("a", "b", "a", "c", "b")]
    with pytest.raises(UsageError, match=r"ids that occur more than once: a, b; give each problem its own"):
        read_file(written(tmp_path / "own.jsonl", *rows))


def test_of_many_names_only_the_first_are_said():
    assert loading.listed([str(number) for number in range(12)], 3) == "0, 1, 2 and 9 more"


def test_the_same_problem_twice_is_said(tmp_path):
    rows = [{"problem": "p", "answer": "1"}, {"problem": "q", "answer": "1"}, {"problem": "p", "answer": "2"}]
    found = read_file(written(tmp_path / "own.jsonl", *rows))
    assert len(found.items) == 3
    assert found.notes == ("the same problem occurs more than once and counts each time: own-0002 is own-0000",)


def test_answers_that_cannot_be_read_are_kept_and_listed(tmp_path):
    rows = [{"problem": name, "answer": name} for name in ("$$", "\\frac{1}{2", "[0,1)", "x" * 3000)]
    found = read_file(written(tmp_path / "own.jsonl", *rows))
    assert found.unreadable == ("own-0000", "own-0001", "own-0003") and len(found.items) == 4
    assert "3 answers cannot be read and are compared as text alone: own-0000, own-0001, own-0003" in found.notes
    assert readable("\\{1, 2\\}") and not readable("1}{2")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "has no problems: write one JSON object a line"),
        (["", "  "], "has no problems"),
        (["[1,", "]"], "line 1 of .* is no JSON"),
        ([{"problem": "p", "answer": "1"}, "", "{torn"], "line 3 of .* is no JSON"),
        (["[1]"], "line 1 of .* is no object"),
        (["[" * 100_000], "line 1 of .* is no JSON"),
        (
            [{"answer": "1"}],
            "line 1 of .* has no problem: its columns are answer, .*problem, question, prompt; .* --problem-column",
        ),
        ([{"problem": " ", "answer": "1"}], r"has no problem with a text and an answer \(1 without\)"),
    ],
)
def test_files_that_are_no_problems_are_refused_with_the_line(tmp_path, rows, words):
    with pytest.raises(UsageError, match=words):
        read_file(written(tmp_path / "own.jsonl", *rows))


def test_bytes_that_are_no_text_are_refused_with_the_line(tmp_path):
    (tmp_path / "own.jsonl").write_bytes(b'{"problem": "p", "answer": "1"}\n{"problem": "\xff"}\n')
    with pytest.raises(UsageError, match=r"line 2 of .* is not in UTF-8"):
        read_file(tmp_path / "own.jsonl")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    (tmp_path / "own.jsonl").write_bytes(b'\xef\xbb\xbf{"problem": "p", "answer": "1"}\n')
    assert read_file(tmp_path / "own.jsonl").items[0].problem == "p"


def test_a_huge_file_needs_a_limit_and_is_read_no_further_than_that(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "MOST", 5)
    monkeypatch.setattr(data_files, "MOST_BYTES", 100)
    rows = [{"problem": str(number), "answer": "1"} for number in range(8)]
    path = written(tmp_path / "own.jsonl", *rows, {"problem": "x" * 200, "answer": "1"})
    with pytest.raises(UsageError, match="more than 5 problems: split it, or take the first with --limit"):
        read_file(path)
    assert len(read_file(path, 4).items) == 4
    monkeypatch.setattr(loading, "MOST", 50)
    with pytest.raises(UsageError, match=r"line 9 of .* is larger"):
        read_file(path)


def test_named_data_sets_are_looked_for_in_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"there is no math500\.jsonl in .*data: put it there, or name its folder"):
        load("math500")
    (tmp_path / "data").mkdir()
    written(tmp_path / "data" / "math500.jsonl", {"problem": "p", "answer": "1"})
    written(tmp_path / "data" / "mine.jsonl", {"problem": "q", "answer": "1"})
    assert load("MATH-500").items[0].problem == "p" and load("mine").items[0].problem == "q"
    with pytest.raises(UsageError, match=r"no aime24\.jsonl"):
        load("aime24", data=tmp_path / "data")


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is a folder: name a file in it"):
        load(str(tmp_path), data=tmp_path)
    with pytest.raises(UsageError, match="there is no data set 'nothing'"):
        load("nothing", data=tmp_path)
    with pytest.raises(UsageError, match="cannot read"):
        load("x" * 5000, data=tmp_path)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "count"), [("math500", 500), ("aime24", 30), ("amc23", 40)])
def test_the_real_data_sets_are_read_completely(shared, name, count):
    found = load(name, data=shared / "data")
    assert len(found.items) == count and len({item.id for item in found.items}) == count
    assert found.left_out == found.unreadable == found.notes == ()
    if name == "math500":
        assert {item.level for item in found.items} == {f"Level {level}" for level in range(1, 6)}
        assert all(item.subject for item in found.items)
    else:
        assert all(float(item.answer) < 1e6 and not item.answer.endswith(".0") for item in found.items)
