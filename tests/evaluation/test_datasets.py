"""Data sets: what is found, read, left out and refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tts_tui.errors import UnknownName, UsageError
from tts_tui.evaluation import datasets
from tts_tui.evaluation.datasets import Item, family_items, load, read_file, readable
from tts_tui.evaluation.families import SPLITS, split_of


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
    assert len(found.items) == 2 * datasets.FEW and (found.name, found.source) == ("families", "lin,add1")


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
        ({"problem": "p", "solution": 4.0}, "4"),
        ({"problem": "p", "answer": 2.5}, "2.5"),
        ({"problem": "p", "answer": 12345678901234567890}, "12345678901234567890"),
        ({"problem": "p", "answer": ["7"]}, "7"),
        ({"problem": "p", "answer": "", "solution": "so \\boxed{\\frac{1}{2}}."}, "\\frac{1}{2}"),
        ({"problem": "p", "answer": "we see \\boxed{8}"}, "8"),
        ({"problem": "p", "answer": 0}, "0"),
    ],
)
def test_answers_are_found_under_all_their_names(tmp_path, row, answer):
    (item,) = read_file(written(tmp_path / "own.jsonl", row)).items
    assert item == Item("own-0000", "p", answer)


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
    assert datasets.listed([str(number) for number in range(12)], 3) == "0, 1, 2 and 9 more"


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
        ([{"answer": "1"}], "line 1 of .* has no problem: its key is problem, question or prompt"),
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
    monkeypatch.setattr(datasets, "MOST", 5)
    monkeypatch.setattr(datasets, "MOST_BYTES", 100)
    rows = [{"problem": str(number), "answer": "1"} for number in range(8)]
    path = written(tmp_path / "own.jsonl", *rows, {"problem": "x" * 200, "answer": "1"})
    with pytest.raises(UsageError, match="more than 5 problems: split it, or take the first with --limit"):
        read_file(path)
    assert len(read_file(path, 4).items) == 4
    monkeypatch.setattr(datasets, "MOST", 50)
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
