"""Inputs of PRMs are put together from ids: they are those of the official code, and text cannot steer them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.prm_examples import MATH_SHEPHERD, QUESTION, QWEN, QWEN_STEPS, RLHFLOW, SKYWORK_PROMPT, STEPS
from tests.real_tokenizers import folder
from tts_tui import profiles
from tts_tui.backends.prm.layouts import check_tokens, make_layout
from tts_tui.backends.prm.tokenizer import PRMTokenizer
from tts_tui.backends.prm.truncation import fitting
from tts_tui.errors import BackendUnavailable, ContextExceeded

pytestmark = pytest.mark.tokenizers

VECTORS = {
    "math-shepherd": (MATH_SHEPHERD, [23, 49]),
    "rlhflow-mistral": (RLHFLOW[:-2], [26, 52]),  # up to where the answer to the last step begins
    "skywork-7b": ([*SKYWORK_PROMPT, *QWEN_STEPS[0], 198, *QWEN_STEPS[1], 198], [18, 37]),
    "qwen-7b": (QWEN[:-2], [45, 64]),
    "trl": ([*SKYWORK_PROMPT[1:-1], 30, *QWEN_STEPS[0], 198, *QWEN_STEPS[1], 198], [17, 36]),
}
"""Ids of the worked example up to the place where its last score is read, and all places."""

TOKENIZERS = {"math-shepherd": "mistral", "rlhflow": "llama3", "skywork": "qwen", "qwen": "qwen", "trl": "qwen"}
LOADED: dict[str, PRMTokenizer] = {}


def tokenizer(adapter):
    """That of an adapter's checkpoints; Skywork's names a token that begins a text, TRL's here does not."""
    if adapter not in LOADED:
        LOADED[adapter] = PRMTokenizer.load(str(folder(TOKENIZERS.get(adapter, "qwen"))))
        if adapter in ("skywork", "trl"):
            LOADED[adapter].bos = 151643 if adapter == "skywork" else None
    return LOADED[adapter]


def layout(name, kind="official"):
    return make_layout(profiles.layout(name, kind), tokenizer(profiles.profile(name)["adapter"]))


EVERY = [(name, kind) for name in profiles.prms() for kind in profiles.layouts(name)]
words = st.text(st.sampled_from("ab 12+-=*.,\\{}$()\n"), max_size=30)
SLOTS = ("{step}", "{question}", "\u202e", "\u200b", "\x1b[31m", "Step 3: ")
TAIL = "x" * 50
wild = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            ["ки", " ки", "<extra_0>", "+", "-", "\n", "<s>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", TAIL, *SLOTS]
        ),
        max_size=6,
    ).map("".join),
)


@pytest.mark.parametrize("name", VECTORS)
def test_ids_are_those_of_the_official_code(name):
    ids, reads = VECTORS[name]
    assert list(layout(name).ids(QUESTION, STEPS)) == ids
    assert [len(layout(name).ids(QUESTION, STEPS[:end])) - 1 for end in (1, 2)] == reads


@pytest.mark.parametrize("name", ["math-shepherd", "rlhflow-mistral", "rlhflow-deepseek"])
def test_the_tokens_that_are_compared_are_those_of_the_vocabulary(name):
    head = profiles.profile(name)["head"]
    check_tokens(tokenizer(profiles.profile(name)["adapter"]), head)
    with pytest.raises(BackendUnavailable, match="has another vocabulary than this PRM"):
        check_tokens(tokenizer("qwen" if name == "math-shepherd" else "math-shepherd"), head)


@pytest.mark.parametrize(("name", "kind"), EVERY)
@settings(max_examples=25, deadline=None)
@given(question=wild, steps=st.lists(wild, min_size=1, max_size=4), more=wild)
def test_a_path_begins_with_its_parent_and_tags_in_text_are_text(name, kind, question, steps, more):
    made = layout(name, kind)
    ids, longer = made.ids(question, steps), made.ids(question, [*steps, more])
    if name != "outcome":  # it reads behind the end of the chat, which is at another place each time
        assert longer[: len(ids)] == ids
        assert len(longer) > len(ids)
    # No token with a meaning comes out of a text: there are as many as for harmless text.
    tame = made.ids("What?", ["one"] * len(steps))
    meant = tokenizer(profiles.profile(name)["adapter"])._raw.get_added_tokens_decoder()
    assert [token for token in ids if token in meant] == [token for token in tame if token in meant]


@pytest.mark.parametrize("name", ["math-shepherd", "skywork-7b", "qwen-7b", "rlhflow-mistral"])
@settings(max_examples=40, deadline=None)
@given(question=words, steps=st.lists(words, min_size=1, max_size=4))
def test_of_harmless_text_the_ids_are_those_of_the_whole_string(name, question, steps):
    question, steps = f"Q {question.strip()}x", [f"s{' '.join(step.split())}." for step in steps]
    adapter = profiles.profile(name)["adapter"]
    raw = tokenizer(adapter)._raw
    if adapter == "math-shepherd":
        text = f"{question} " + "\n".join(f"Step {i}: {step} ки" for i, step in enumerate(steps, 1))
        want = [1, *raw.encode(text, add_special_tokens=False).ids]
    elif adapter == "skywork":  # put together from lines by the official code, too
        want = [151643, *raw.encode(question + "\n", add_special_tokens=False).ids]
        want += [token for step in steps for token in (*raw.encode(step, add_special_tokens=False).ids, 198)]
    elif adapter == "qwen":
        system = "Please reason step by step, and put your final answer within \\boxed{}."
        text = (
            f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        want = raw.encode(text + "".join(step + "<extra_0>" for step in steps), add_special_tokens=False).ids
    else:
        turns = [f"{question} {steps[0]}", *steps[1:]]
        user, reply = (
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        )
        text = "<|begin_of_text|>" + "+<|eot_id|>".join(f"{user}{turn}<|eot_id|>{reply}" for turn in turns)
        want = raw.encode(text, add_special_tokens=False).ids
    assert list(layout(name).ids(question, steps)) == list(want)


def test_the_paper_and_search_and_learn_lay_the_same_checkpoint_out_otherwise():
    steps = ["one\ntwo", "three"]
    raw = tokenizer("math-shepherd")._raw
    whole = [1, *raw.encode("Q one\ntwo ки\nthree ки", add_special_tokens=False).ids]
    assert list(layout("math-shepherd", "paper").ids("Q", steps)) == whole
    prompt = profiles.layout("math-shepherd", "sal")["opening"].replace("{question}", "Q")
    whole = [1, *raw.encode(f"{prompt}one\ntwo ки\n\nthree ки", add_special_tokens=False).ids]
    assert list(layout("math-shepherd", "sal").ids("Q", steps)) == whole
    lines = {kind: layout("skywork-7b", kind).ids("Q", steps) for kind in ("official", "paper", "sal")}
    qwen = tokenizer("skywork").plain
    start = (151643, *qwen("Q\n"))
    assert lines["official"] == (*start, *qwen("one"), 198, *qwen("two"), 198, *qwen("three"), 198)
    assert lines["paper"] == (*start, *qwen("one two"), 198, *qwen("three"), 198)
    assert lines["sal"] == (*start, *qwen("one"), 198, *qwen("two"), 198, 198, *qwen("three"), 198)


def test_steps_that_are_numbered_already_are_not_numbered_again():
    made = layout("math-shepherd")
    assert made.ids("Q", ["Step 1: a", "## Step 2: b"]) != made.ids("Q", ["a", "b"])
    assert made.ids("Q", ["Step 1: a"]) == made.ids("Q", ["a"])


def test_steps_of_a_trl_prm_are_tokenized_alone():
    alone = PRMTokenizer.load(str(folder("mistral")))
    raw, ids = alone._raw, make_layout(profiles.layout("trl"), alone).ids("Q", ["one", "two"])
    parts = [raw.encode(text, add_special_tokens=False).ids for text in ("Q", "one", "\n", "two", "\n")]
    assert list(ids) == [1, *(token for part in parts for token in part)]


def test_line_feeds_alone_become_spaces_in_the_paper_s_skywork():
    made, plain = layout("skywork-7b", "paper"), tokenizer("skywork").plain
    assert made.ids("Q", ["a\x0bb\nc\u2028d"]) == (151643, *plain("Q\n"), *plain("a\x0bb c\u2028d"), 198)


def test_a_step_that_begins_with_the_word_step_is_numbered_all_the_same():
    made = layout("math-shepherd")
    assert made.ids("Q", ["Step 1 gives us 4"]) == made.ids("Q", ["Step 1: Step 1 gives us 4"])
    assert made.ids("Q", ["**Step 1.** We add"]) != made.ids("Q", ["Step 1: **Step 1.** We add"])


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTORS)
def test_the_last_steps_that_fit_are_shown_with_the_question(name):
    made = layout(name)
    steps = [f"step {i} of a long path that says some more" for i in range(40)]
    opening = made.ids("The question", ["x"])[:2]
    seen = [fitting(made, "The question", steps[:end], 200) for end in range(1, 41)]
    assert all(len(ids) <= 200 and ids[:2] == opening for ids, _ in seen)
    unseen = [left for _, left in seen]
    assert unseen[0] == 0 and unseen[-1] > 0 and unseen == sorted(unseen)
    # Most steps find all that is before them computed: the window moves in leaps.
    moves = sum(a != b for a, b in pairwise(unseen))
    assert moves <= unseen[-1] / 3
    assert seen[20] == fitting(made, "The question", steps[:21], 200), "later steps change nothing"


def test_of_a_step_that_is_too_long_by_itself_the_end_is_shown():
    made = layout("qwen-7b")
    ids, unseen = fitting(made, "Q", ["short", "long " * 2000 + "the end"], 120)
    assert unseen == 2 and 110 <= len(ids) <= 120
    assert ids[-3:-1] == tokenizer("qwen").plain(" the end") and ids[-1] == 151651


def test_a_question_that_does_not_fit_is_an_error_in_words():
    with pytest.raises(
        ContextExceeded, match="the question leaves no room for a step in the reward model's context of 100"
    ):
        fitting(layout("qwen-7b"), "long " * 200, ["step"], 100)


# -- tokenizers that do not fit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "of", "said"),
    [
        ("qwen-7b", "math-shepherd", "chat template|another vocabulary"),
        ("math-shepherd", "qwen", "another vocabulary"),
        ("skywork-7b", "math-shepherd", "another vocabulary"),
    ],
)
def test_a_tokenizer_of_another_model_is_refused(name, of, said):
    with pytest.raises(BackendUnavailable, match=said):
        make_layout(profiles.layout(name), tokenizer(of))


def test_a_stock_qwen_tokenizer_is_refused_by_its_missing_tag():
    stock = PRMTokenizer.load(str(folder("qwen_stock")))
    with pytest.raises(BackendUnavailable, match=r"'<extra_0>' should be token 151651 in it and is tokens 27 15460 62"):
        make_layout(profiles.layout("qwen-7b"), stock)


def test_a_missing_chat_template_is_one_sentence(monkeypatch):
    bare = PRMTokenizer.load(str(folder("qwen")))
    bare._fast.chat_template = None
    with pytest.raises(BackendUnavailable, match="has no chat template, which this PRM's input is made with"):
        make_layout(profiles.layout("qwen-7b"), bare)


def test_a_template_that_changes_what_stands_in_it_is_refused():
    odd = PRMTokenizer.load(str(folder("qwen")))
    odd._fast.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(BackendUnavailable, match="does not show every message once, in order"):
        make_layout(profiles.layout("qwen-7b"), odd)
    odd._fast.chat_template = "{% for m in messages %}{{ raise_exception('no system') }}{% endfor %}"
    with pytest.raises(BackendUnavailable, match=r"the chat template of .* fails: no system"):
        make_layout(profiles.layout("qwen-7b"), odd)


def test_llama_templates_with_a_block_of_dates_fit_too():
    dated = make_layout(profiles.layout("rlhflow-mistral"), PRMTokenizer.load(str(folder("llama3_date"))))
    ids = dated.ids(QUESTION, STEPS)
    assert ids[:3] == (128000, 128006, 9125) and len(ids) == 53 + 25
    assert ids[-53 + 1 :] == layout("rlhflow-mistral").ids(QUESTION, STEPS)[1:]
