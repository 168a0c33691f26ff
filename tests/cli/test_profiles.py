"""`tts-tui profiles`: plain text at every width, and all facts with their sources."""

from __future__ import annotations

import re

import pytest

from tts_tui import profiles
from tts_tui.cli import main
from tts_tui.cli import profiles as profile_view

REWARD_MODELS = ("embedded", *profiles.prms())


def call(capsys, *arguments):
    code = main.run(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def flat(text):
    """Text without its line breaks, so that it does not matter where lines end."""
    return " ".join(text.split())


def part(text, heading):
    """Lines of one part of a profile, its heading left out."""
    (found,) = [block for block in text.split("\n\n") if block.startswith(heading)]
    return found.splitlines()[1:]


# -- the table ---------------------------------------------------------------------------------------------------------


def test_all_reward_models_are_listed_with_what_suits_them(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = call(capsys, "profiles")
    assert (code, err) == (0, "")
    rows = out.split("\n\n")[0].splitlines()
    assert rows[0].split() == ["name", "title", "adapter", "context", "score", "vote", "ProcessBench"]
    assert [row.split()[0] for row in rows[1:]] == sorted(REWARD_MODELS)
    assert "qwen-7b Qwen2.5-Math-PRM-7B qwen 4096 prod prm-vote 73.5" in map(flat, rows)
    assert "embedded comes with tts-tui - - last prm-max -" in map(flat, rows)


@pytest.mark.parametrize("width", [24, 40, 60, 80, 100, 110, 200])
def test_the_table_fits_and_its_columns_stand_below_each_other(width):
    text = profile_view.listing(width)
    assert all(len(line) <= width for line in text.splitlines())
    head, *rows = text.split("\n\n")[0].splitlines()
    assert len(rows) == len(REWARD_MODELS)
    starts = [found.start() for found in re.finditer(r"\S+", head)]
    assert all(len(row) > start and row[start - 1] == " " for row in rows for start in starts[1:])


# -- one profile -------------------------------------------------------------------------------------------------------


def sentences(table):
    """All texts of a profile but those of its layouts."""
    for key, value in table.items():
        if isinstance(value, dict) and key != "layouts":
            yield from sentences(value)
        elif isinstance(value, str):
            yield value


@pytest.mark.parametrize("name", profiles.names())
@pytest.mark.parametrize("width", [30, 60, 100])
def test_every_text_of_a_profile_is_shown_within_the_width(name, width):
    known = profiles.profile(name)
    text = profile_view.shown(name, None, width)
    assert all(len(line) <= width and line.isprintable() for line in text.splitlines())
    official = known.get("layouts", {}).get("official", {})
    said = [*sentences(known), *(official[key] for key in official.keys() & {"note", "source"})]
    shown = "".join(text.split())  # a word longer than a line is broken
    assert [one for one in said if "".join(one.split()) not in shown] == []


@pytest.mark.parametrize("name", profiles.prms())
def test_figures_stand_beside_what_they_measure(name):
    words = flat(profile_view.shown(name, None, 100))
    for table in profiles.profile(name).get("reported", {}).values():
        for key, value in table.items():
            assert key in ("note", "source") or f"{key} {value}" in words


def test_an_adapter_shows_its_general_profile(capsys):
    code, out, _ = call(capsys, "profiles", "show", "RLHFlow")
    assert code == 0
    assert out.startswith("rlhflow-deepseek: RLHFlow-PRM-Deepseek-8B\n")


def test_the_embedded_profile_shows_too(capsys):
    code, out, _ = call(capsys, "profiles", "show", "embedded")
    assert code == 0
    assert out.startswith("embedded\n\nmade of")
    assert "pass@1 interval 0.185 to 0.266" in flat(out)
    assert "\n\n\n" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nope",), "unknown profile 'nope': known are embedded, "),
        (("qwn-7b",), "unknown profile 'qwn-7b': did you mean 'qwen-7b'?"),
        (("qwen", "--layout", "papr"), "unknown layout of qwen-7b 'papr': did you mean 'paper'?"),
        (("embedded", "--layout", "sal"), "the profile embedded has no layouts: leave --layout out"),
        (("../errors",), "unknown profile '../errors'"),
        ((), "missing argument"),
    ],
)
def test_a_mistake_is_one_sentence(capsys, arguments, said):
    code, out, err = call(capsys, "profiles", "show", *arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


# -- layouts -----------------------------------------------------------------------------------------------------------


def drawn(name, layout=None):
    """The pieces of a layout as (what, text)."""
    text = profile_view.shown(name, layout, 400)
    return [(line[:16].strip(), line[16:]) for line in part(text, "Layout")]


def test_a_layout_of_text_is_drawn_piece_by_piece():
    assert drawn("math-shepherd")[:7] == [
        ("begin", "the token that begins a text"),
        ("opening", '"What is 2+3*4? ", one text with step 1'),
        ("step 1", '"Step 1: 3*4 = 12."'),
        ("tag", '" ки" = token 12902; the score of step 1 is read here'),
        ("between", r'"\n"'),
        ("step 2", r'"Step 2: 2+12 = 14. The answer is \boxed{14}."'),
        ("tag", '" ки" = token 12902; the score of step 2 is read here'),
    ]
    assert ("step 1", '"3*4 = 12."') in drawn("math-shepherd", "PAPER")


def test_a_prompt_that_belongs_to_a_layout_is_drawn_whole():
    opening = dict(drawn("math-shepherd", "sal"))["opening"]
    whole = flat(profile_view.shown("math-shepherd", "sal", 80))
    assert opening.startswith('"Solve the following math problem')
    assert r'solves the problem.\nWhat is 2+3*4?\n ", one text with step 1' in whole


def test_a_layout_with_a_tag_for_each_line_says_so():
    assert ("lines", "Each line of a step has a tag of its own; the last one's score is the step's.") in drawn(
        "skywork-7b"
    )
    assert ("lines", "Line feeds inside a step become spaces.") in drawn("skywork-7b", "paper")
    assert ("blank line", r'"\n" = token 198; its own score is not used') in drawn("skywork-7b", "sal")


def test_a_layout_without_ids_shows_the_text_alone():
    assert drawn("trl")[0] == ("begin", "the token that begins a text, if there is one")
    assert ("tag", r'"\n"; the score of step 1 is read here') in drawn("trl")


def test_a_chat_is_drawn_with_its_tags():
    pieces = drawn("qwen-7b")
    assert pieces[0] == ("system", r'"Please reason step by step, and put your final answer within \boxed{}."')
    assert ("tag", '"<extra_0>" = token 151651; the score of step 2 is read here') in pieces


def test_a_chat_without_tags_is_read_at_its_end():
    pieces = dict(drawn("outcome"))
    assert pieces["assistant"] == r'"3*4 = 12.\n\n2+12 = 14. The answer is \boxed{14}."'
    assert "the score of the path is read at its last token" in pieces["end"]


def test_turns_are_drawn_with_the_answer_between_them():
    assert drawn("rlhflow")[:5] == [
        ("user", '"What is 2+3*4? 3*4 = 12."'),
        ("assistant", "as the chat template opens an answer; the score of step 1 is read at its last token"),
        ("answer", '"+" = token 10'),
        ("user", r'"2+12 = 14. The answer is \boxed{14}."'),
        ("assistant", "as the chat template opens an answer; the score of step 2 is read at its last token"),
    ]


def test_the_same_layout_by_another_name_says_so():
    text = profile_view.shown("qwen-7b", "sal", 100)
    assert "Layout sal, the same input as official" in text
    assert "see it with --layout official" in flat("\n".join(part(text, "Other layouts")))
    assert "the same input as official." in flat("\n".join(part(text, "Other layouts")))
