"""The real tokenizers are what facts about PRMs' inputs were found with: whole strings give the ids that are known."""

from __future__ import annotations

import pytest

from tests.prm_examples import (
    DATE_BLOCK,
    MATH_SHEPHERD,
    QUESTION,
    QWEN,
    QWEN_STEPS,
    RLHFLOW,
    SKYWORK_PROMPT,
    STEPS,
    SYSTEM,
    VERSA,
)
from tests.real_tokenizers import load, load_chat

pytestmark = pytest.mark.tokenizers


def encode(name: str, text: str, special: bool = False) -> list[int]:
    return list(load(name).encode(text, add_special_tokens=special).ids)


def render(name: str, *messages: tuple[str, str]) -> str:
    chat = [{"role": role, "content": content} for role, content in messages]
    return str(load_chat(name).apply_chat_template(chat, tokenize=False))


TURNS = (("user", f"{QUESTION} {STEPS[0]}"), ("assistant", "+"), ("user", STEPS[1]), ("assistant", "+"))


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        ("mistral", "ки", [12902]),
        ("mistral", "x ки", [1318, 12902]),
        ("mistral", "10ки", [28705, 28740, 28734, 1107]),
        ("mistral", "x\nки", [1318, 13, 1107]),
        ("mistral", "кино", [12902, 703]),
        ("mistral", " x", [28705, 1318]),
        ("mistral", "x" + 20 * " " + "y", [1318, 359, 2287, 337]),
        ("llama3", "+", [10]),
        ("llama3", "-", [12]),
        ("llama3", "ки", [17165]),
        ("llama3", " ки", [116624]),
        ("llama3", "\n\n", [271]),
        ("llama3", " \n\n\n\n", [23535]),
        ("llama3", "<|reserved_special_token_0|>", [128002]),
        ("llama3", "<|reserved_special_token_1|>", [128003]),
        ("llama3", "<|reserved_special_token_2|>", [128005]),
        ("llama3", "<|reserved_special_token_247|>", [128255]),
        ("qwen", "<extra_0>", [151651]),
        ("qwen", "12.<extra_0>2", [16, 17, 13, 151651, 17]),
        ("qwen_stock", "<extra_0>", [27, 15460, 62, 15, 29]),
        ("qwen_stock", "<|quad_end|>", [151651]),
        ("qwen_stock", "<|vision_start|>", [151652]),
        ("qwen", "\n", [198]),
        ("qwen", "\n\n", [271]),
        ("qwen", ".\n", [624]),
        ("qwen", ".\n\n", [382]),
        ("qwen", "?\n", [5267]),
        ("qwen", " +", [488]),
        ("qwen", " -", [481]),
        ("qwen", " \n\n\n\n", [22701]),
        ("qwen", " \n\n\n\n\n", [76325]),
        ("qwen", "correct", [19928]),
        ("qwen", "incorrect", [61954]),
        ("qwen", "Yes", [9454]),
        ("qwen", "No", [2753]),
    ],
)
def test_texts_have_their_known_ids(name, text, ids):
    assert encode(name, text) == ids


def test_mistral_pieces_have_their_known_ids():
    known = {"▁+": 648, "▁-": 387, "+": 28806, "-": 28733, "▁ки": 12902, "ки": 1107, "<0x0A>": 13, "<s>": 1, "</s>": 2}
    assert {piece: load("mistral").token_to_id(piece) for piece in known} == known
    assert encode("mistral", "+ -", special=True) == [1, 648, 387]


@pytest.mark.parametrize(("name", "size"), [("mistral", 32000), ("llama3", 128256), ("qwen", 151665)])
def test_vocabularies_are_whole(name, size):
    assert load(name).get_vocab_size(with_added_tokens=True) == size


@pytest.mark.parametrize("name", ["mistral", "llama3", "llama3_date", "qwen", "qwen_stock"])
def test_text_comes_back_as_it_was(name):
    text = 'Über "naïve" \\frac{1}{2}:\n\n\tπ ≈ 3.14159, 中文 ки 🙂   end'
    assert load(name).decode(encode(name, text)) == text


def test_math_shepherd_text_gives_the_worked_ids():
    text = f"{QUESTION} Step 1: {STEPS[0]} ки\nStep 2: {STEPS[1]} ки"
    assert encode("mistral", text, special=True) == MATH_SHEPHERD
    assert [place for place, token in enumerate(MATH_SHEPHERD) if token == 12902] == [23, 49]
    assert load_chat("mistral").encode(text) == MATH_SHEPHERD


def test_math_shepherd_text_of_a_path_begins_with_that_of_its_parent():
    parent = encode("mistral", f"{QUESTION} Step 1: {STEPS[0]} ки", special=True)
    assert parent == MATH_SHEPHERD[:24]


def test_math_shepherd_text_of_the_paper_gives_the_known_places():
    ids = encode("mistral", f"{QUESTION} {STEPS[0]} ки\n{STEPS[1]} ки\n", special=True)
    assert len(ids) == 42
    assert ids[-1] == 13
    assert [place for place, token in enumerate(ids) if token == 12902] == [19, 40]


def test_rlhflow_chat_gives_the_worked_ids():
    assert encode("llama3", render("llama3", *TURNS)) == RLHFLOW
    assert (RLHFLOW[27], RLHFLOW[53], len(RLHFLOW)) == (10, 10, 55)


def test_rlhflow_chat_begins_with_dates_where_the_template_inserts_them():
    ids = encode("llama3_date", render("llama3_date", *TURNS))
    assert ids == [*DATE_BLOCK, *RLHFLOW[1:]]
    assert len(ids) == 80


def test_llama_templates_trim_what_stands_in_a_turn():
    padded = tuple((role, f"\n {content} \n") for role, content in TURNS)
    for name in ("llama3", "llama3_date"):
        assert render(name, *padded) == render(name, *TURNS)


def test_the_date_template_puts_a_system_prompt_behind_the_dates():
    written = render("llama3_date", ("system", " Be brief. "), ("user", "Hello"))
    assert "26 Jul 2024\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>" in written
    assert written.count("system") == 1


def test_a_rendered_llama_chat_has_its_first_token_already():
    assert encode("llama3", render("llama3", *TURNS), special=True)[:3] == [128000, 128000, 128006]


def test_versa_text_gives_the_worked_ids():
    text = f"{QUESTION} \n\n{STEPS[0]} \n\n\n\n{STEPS[1]} \n\n\n\n"
    assert encode("llama3", text, special=True) == VERSA


def test_qwen_chat_gives_the_worked_ids():
    answer = "".join(f"{step}<extra_0>" for step in STEPS)
    with_system = render("qwen", ("system", SYSTEM), ("user", QUESTION), ("assistant", answer))
    assert encode("qwen", with_system) == QWEN
    assert [place for place, token in enumerate(QWEN) if token == 151651] == [45, 64]
    assert render("qwen", ("user", QUESTION), ("assistant", answer)) == with_system


def test_skywork_ids_are_those_of_the_parts_and_not_of_the_whole():
    assert encode("qwen", f"<|endoftext|>{QUESTION}\n") == SKYWORK_PROMPT
    assert tuple(encode("qwen", step) for step in STEPS) == QWEN_STEPS
    whole = encode("qwen", f"<|endoftext|>{QUESTION}\n{STEPS[0]}\n{STEPS[1]}\n")
    assert len(whole) == 36
    assert (whole[17], whole[-1]) == (624, 27275)
    assert 198 not in whole


def test_trl_ids_are_those_of_the_parts():
    assert encode("qwen", QUESTION) == [3838, 374, 220, 17, 10, 18, 9, 19, 30]
    assert encode("qwen", QUESTION, special=True) == encode("qwen", QUESTION)


@pytest.mark.parametrize("name", ["llama3", "qwen"])
def test_transformers_reads_the_same_ids_out_of_text(name):
    text = f"<|endoftext|>{QUESTION}\n\n  {STEPS[1]} +<extra_0>\t'Ll ﬁ é"
    assert load_chat(name).encode(text, add_special_tokens=False) == encode(name, text)
