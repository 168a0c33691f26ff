"""Profiles obey the schema and say where their facts are from; a checkpoint gets its own profile and never a guess."""

from __future__ import annotations

import json
import string

import pytest

from tts_tui import profiles
from tts_tui.errors import UnknownName, UsageError
from tts_tui.plan import SCORES, VOTES
from tts_tui.profiles import specs
from tts_tui.profiles.specs import PRMSpec, parse_prm

PRMS = profiles.prms()

# -- the schema --------------------------------------------------------------------------------------------------------

NEEDED = {
    "name": str,
    "title": str,
    "adapter": str,
    "checkpoints": list,
    "architectures": list,
    "base": str,
    "separator": str,
    "read": str,
    "normalisation": str,
    "labels": str,
    "source": str,
    "layouts": dict,
    "defaults": dict,
    "biases": dict,
}
ALLOWED = {
    "general": bool,
    "context": int,
    "context_note": str,
    "dtype": str,
    "note": str,
    "head": dict,
    "reported": dict,
}
LAYOUTS = {
    "text": (
        {"bos": str, "opening": str, "step": str, "tag": str},
        {"joined": bool, "numbered": bool, "lines": str, "tag_ids": list, "between": str, "blank": bool},
    ),
    "chat": ({}, {"system": str, "tag": str, "tag_ids": list, "join": str}),
    "turns": ({"first": str, "step": str, "answer": str, "answer_ids": list}, {}),
}


def check(table, needed, allowed):
    """A table has what it needs, nothing else, of the right types, and no text that says nothing."""
    assert needed.keys() <= table.keys() <= needed.keys() | allowed.keys()
    for key, value in table.items():
        assert type(value) is {**needed, **allowed}[key], key
        assert value != "", key
    for key in table.keys() & {"note", "source", "title", "base", "separator", "read", "normalisation", "labels"}:
        assert table[key] == table[key].strip()


def slots(text):
    """Names in braces of a text that a question or a step is put into."""
    return [name for name in ("question", "step") for _ in range(text.count(f"{{{name}}}"))]


@pytest.mark.parametrize("name", PRMS)
def test_a_profile_has_the_keys_of_the_schema_and_no_others(name):
    known = profiles.profile(name)
    check(known, NEEDED, ALLOWED)
    assert known["name"] == name
    assert all(isinstance(text, str) and text for text in [*known["checkpoints"], *known["architectures"]])
    assert ("context" in known) == ("context_note" in known)
    assert known.get("context", 1) > 0
    check(known["defaults"], {"score": str, "vote": str, "source": str}, {"note": str})
    assert known["defaults"]["score"] in SCORES
    assert known["defaults"]["vote"] in VOTES
    assert len(known["biases"]) > 1
    assert all(isinstance(text, str) and text.endswith(".") for key, text in known["biases"].items() if key != "source")


@pytest.mark.parametrize("name", PRMS)
def test_every_table_says_where_its_facts_are_from(name):
    def sources(table):
        for value in table.values():
            if isinstance(value, dict):
                yield from sources(value)
        if any(not isinstance(value, dict) for value in table.values()):
            yield table.get("source")

    found = list(sources(profiles.profile(name)))
    assert len(found) > 3
    assert all(isinstance(source, str) and len(source) > 10 for source in found)


@pytest.mark.parametrize("name", PRMS)
def test_a_layout_has_the_keys_of_its_kind_or_is_the_same_as_another(name):
    layouts = profiles.profile(name)["layouts"]
    assert profiles.layouts(name)[0] == profiles.OFFICIAL
    assert set(layouts) <= {"official", "paper", "sal"}
    for table in layouts.values():
        if "same" in table:
            check(table, {"same": str, "note": str, "source": str}, {})
            assert "same" not in layouts[table["same"]]
            continue
        needed, allowed = LAYOUTS[table["kind"]]
        check(table, {"kind": str, "source": str, **needed}, {"note": str, **allowed})
        for key in table.keys() & {"tag_ids", "answer_ids"}:
            assert table[key], key
            assert all(type(token) is int and token > 0 for token in table[key])
        assert "tag_ids" not in table or "tag" in table
        assert table.get("bos", "always") in ("always", "never", "tokenizer")
        assert table.get("lines", "each") in ("each", "spaces")


@pytest.mark.parametrize("name", PRMS)
def test_question_and_step_stand_in_a_layout_once_each(name):
    for layout in profiles.layouts(name):
        table = profiles.layout(name, layout)
        if table["kind"] == "text":
            assert slots(table["opening"]) == ["question"]
            assert slots(table["step"]) == ["step"]
        elif table["kind"] == "turns":
            assert slots(table["first"]) == ["question", "step"]
            assert slots(table["step"]) == ["step"]


@pytest.mark.parametrize("name", PRMS)
def test_a_head_of_tokens_says_which_and_how_they_are_written(name):
    head = profiles.profile(name).get("head")
    causal = all(text.endswith("ForCausalLM") for text in profiles.profile(name)["architectures"])
    assert (head is not None) == causal
    if head is not None:
        check(head, {"tokens": list, "written": list, "source": str}, {"note": str})
        assert len(head["tokens"]) == len(head["written"]) == len(set(head["tokens"])) == 2


@pytest.mark.parametrize("name", PRMS)
def test_reported_figures_are_numbers(name):
    for table in profiles.profile(name).get("reported", {}).values():
        numbers = {key: value for key, value in table.items() if key not in ("note", "source")}
        assert numbers
        assert all(type(value) is float and 0 < value < 100 for value in numbers.values())


@pytest.mark.parametrize("name", [name for name in PRMS if "reported" in profiles.profile(name)])
def test_the_mean_of_processbench_is_that_of_its_parts(name):
    bench = profiles.profile(name)["reported"]["processbench"]
    parts = [bench[key] for key in ("gsm8k", "math", "olympiadbench", "omnimath")]
    assert bench["avg"] == pytest.approx(sum(parts) / 4, abs=0.1)


def test_profiles_of_one_adapter_have_the_same_layouts_and_the_same_classes():
    for adapter in profiles.adapters():
        mine = [name for name in PRMS if profiles.profile(name)["adapter"] == adapter]
        assert len({profiles.layouts(name) for name in mine}) == 1
        assert len({tuple(profiles.profile(name)["architectures"]) for name in mine}) == 1
        assert sum(profiles.profile(name).get("general", False) for name in mine) == 1


def test_no_checkpoint_belongs_to_two_profiles():
    ids = [id.lower().rpartition("/")[2] for name in PRMS for id in profiles.profile(name)["checkpoints"]]
    assert len(ids) == len(set(ids))


def test_the_issue_names_these():
    assert set(PRMS) == {
        "math-shepherd",
        "rlhflow-mistral",
        "rlhflow-deepseek",
        "skywork-1.5b",
        "skywork-7b",
        "qwen-7b",
        "qwen-72b",
        "qwen-prm800k",
        "trl",
        "outcome",
    }
    assert profiles.adapters() == ("math-shepherd", "outcome", "qwen", "rlhflow", "skywork", "trl")


# -- access ------------------------------------------------------------------------------------------------------------


def test_the_layout_that_is_the_same_as_another_has_its_keys_and_its_own_source():
    official, sal = profiles.layout("qwen-7b"), profiles.layout("qwen-7b", "sal")
    facts = {"note", "source"}
    assert {key: sal[key] for key in sal.keys() - facts} == {key: official[key] for key in official.keys() - facts}
    assert sal["source"] != official["source"]
    assert sal["note"] != official["note"]
    assert "same" not in sal


def test_a_layout_can_be_changed_without_changing_the_profile():
    profiles.layout("qwen-7b")["system"] = "x"
    profiles.layout("qwen-7b", "sal")["system"] = "x"
    assert profiles.layout("qwen-7b")["system"].endswith(r"\boxed{}.")


def test_braces_of_a_prompt_mean_themselves():
    opening = profiles.layout("math-shepherd", "sal")["opening"]
    assert r"$\boxed{answer}$" in opening
    assert opening.endswith("problem.\n{question}\n ")
    with pytest.raises(KeyError):  # so nobody may format it
        string.Formatter().format(opening, question="", step="")


@pytest.mark.parametrize("call", [profiles.layout, profiles.layouts])
def test_layouts_of_no_profile(call):
    with pytest.raises(UnknownName, match="unknown profile 'qwn-7b': did you mean 'qwen-7b'"):
        call("qwn-7b")


def test_an_unknown_layout_says_which_there_are():
    with pytest.raises(UnknownName, match="unknown layout of trl 'paper': known are official"):
        profiles.layout("trl", "paper")
    with pytest.raises(UnknownName, match="did you mean 'paper'"):
        profiles.layout("qwen-7b", "papr")
    assert profiles.layouts("embedded") == ()


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("qwen", "qwen-7b"),
        ("rlhflow", "rlhflow-deepseek"),
        ("skywork", "skywork-7b"),
        ("math-shepherd", "math-shepherd"),
        ("trl", "trl"),
        ("QWEN-72B", "qwen-72b"),
    ],
)
def test_a_name_is_that_of_a_profile_or_of_an_adapter(name, profile):
    assert profiles.resolve(name) == profile


@pytest.mark.parametrize("name", ["embedded", "embedded-policy", "qwn", "", "Qwen/Qwen2.5-Math-PRM-7B"])
def test_what_no_adapter_loads_is_no_name_of_a_prm(name):
    with pytest.raises(UnknownName, match="unknown PRM"):
        profiles.resolve(name)


CHECKPOINTS = [
    ("Qwen/Qwen2.5-Math-PRM-7B", "", "qwen-7b"),
    ("qwen/qwen2.5-math-prm-7b", "", "qwen-7b"),
    ("/models/Qwen2.5-Math-PRM-72B/", "", "qwen-72b"),
    (r"D:\models\Qwen2.5-Math-7B-PRM800K", "Qwen2ForProcessRewardModel", "qwen-prm800k"),
    ("/c/hub/models--Skywork--Skywork-o1-Open-PRM-Qwen-2.5-1.5B/snapshots/0a1b", "Qwen2ForPrmModel", "skywork-1.5b"),
    ("peiyi9979/math-shepherd-mistral-7b-prm", "MistralForCausalLM", "math-shepherd"),
    ("RLHFlow/Llama3.1-8B-PRM-Mistral-Data", "LlamaForCausalLM", "rlhflow-mistral"),
    # The class decides where the name says nothing.
    ("mine", "Qwen2ForProcessRewardModel", "qwen-7b"),
    ("mine", "Qwen2ForPrmModel", "skywork-7b"),
    ("mine", "LlamaForTokenClassification", "trl"),
    ("mine", "Qwen2ForSequenceClassification", "outcome"),
    # Language models are not told apart by their class.
    ("mine", "MistralForCausalLM", None),
    ("mine", "LlamaForCausalLM", None),
    ("mine", "Qwen2ForCausalLM", None),
    ("mine", "", None),
    ("", "", None),
    ("/", "", None),
    # Two PRMs have this name: the class tells.
    ("jinachris/Qwen2.5-Math-7B-PRM800K", "Qwen2ForTokenClassification", "trl"),
    # A server that was told to serve it as another class: what it is stays known.
    ("/models/Qwen2.5-Math-PRM-7B", "Qwen2ForCausalLM", "qwen-7b"),
    ("Qwen/Qwen2.5-Math-PRM-7B", "LlamaForTokenClassification", "qwen-7b"),
    # Only the whole of a name counts.
    ("/models/Qwen2.5-Math-PRM-7B-mine", "", None),
    ("/models/qwen2.5-math-prm-7b/other", "", None),
]


@pytest.mark.parametrize(("model", "architecture", "profile"), CHECKPOINTS)
def test_a_checkpoint_gets_its_own_profile_and_never_a_guess(model, architecture, profile):
    assert profiles.for_checkpoint(model, architecture) == profile


@pytest.mark.parametrize(
    ("name", "model", "architecture", "profile"),
    [
        (None, "Qwen/Qwen2.5-Math-PRM-72B", "", "qwen-72b"),
        ("qwen", "Qwen/Qwen2.5-Math-PRM-72B", "", "qwen-72b"),
        ("rlhflow", "RLHFlow/Llama3.1-8B-PRM-Mistral-Data", "", "rlhflow-mistral"),
        ("qwen-7b", "Qwen/Qwen2.5-Math-PRM-72B", "", "qwen-7b"),
        ("rlhflow", "mine", "LlamaForCausalLM", "rlhflow-deepseek"),
        ("skywork", "Qwen/Qwen2.5-Math-PRM-72B", "", "skywork-7b"),
        (None, "mine", "LlamaForCausalLM", None),
    ],
)
def test_what_the_user_names_decides_and_an_adapter_leaves_the_checkpoint_its_profile(
    name, model, architecture, profile
):
    assert profiles.choose(name, model, architecture) == profile


def test_a_name_that_is_none_is_an_error():
    with pytest.raises(UnknownName):
        profiles.choose("nope", "Qwen/Qwen2.5-Math-PRM-7B")


# -- specs -------------------------------------------------------------------------------------------------------------

SPECS = [
    ("hf:ORG/NAME", PRMSpec("hf", "ORG/NAME")),
    ("hf:ORG/NAME@qwen", PRMSpec("hf", "ORG/NAME", "qwen")),
    ("hf:ORG/NAME@Qwen-7B:Paper", PRMSpec("hf", "ORG/NAME", "qwen-7b", "paper")),
    ("hf:/data/@home/model", PRMSpec("hf", "/data/@home/model")),
    ("hf:/data/@home/model@trl", PRMSpec("hf", "/data/@home/model", "trl")),
    (r"hf:C:\@home\model", PRMSpec("hf", r"C:\@home\model")),
    (r"hf:C:\model@rlhflow:sal", PRMSpec("hf", r"C:\model", "rlhflow", "sal")),
    ("sglang:http://host:30000", PRMSpec("sglang", "http://host:30000")),
    ("sglang:http://host:30000@math-shepherd:sal", PRMSpec("sglang", "http://host:30000", "math-shepherd", "sal")),
    ("sglang:http://host@skywork-1.5b", PRMSpec("sglang", "http://host", "skywork-1.5b")),
    # An address with a user in it is refused later, by a sentence about that.
    ("sglang:http://me:pw@host:30000", PRMSpec("sglang", "http://me:pw@host:30000")),
    ("sglang:http://me:pw@10.0.0.1", PRMSpec("sglang", "http://me:pw@10.0.0.1")),
    ("sglang:http://me:pw@example.org@qwen", PRMSpec("sglang", "http://me:pw@example.org", "qwen")),
]


@pytest.mark.parametrize(("spec", "parts"), SPECS)
def test_a_spec_is_taken_apart(spec, parts):
    assert parse_prm(spec) == parts


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("embedded", "write hf:PATH, hf:ORG/NAME or sglang:URL"),
        ("openai:http://x", "write hf:PATH, hf:ORG/NAME or sglang:URL"),
        ("hf:", "'hf:' names no model: write hf:PATH or hf:ORG/NAME"),
        ("hf:@qwen", "'hf:@qwen' names no model"),
        ("sglang:", "'sglang:' names no model: write sglang:URL"),
        ("hf:a/b@", "no PRM is named behind the @: name it behind an @, as in hf:PATH@qwen"),
        ("hf:a/b@qwem", "unknown PRM 'qwem': did you mean 'qwen'"),
        ("hf:a/b@qwem:paper", "`tts-tui profiles` lists all"),
        ("hf:a/b@embedded", "unknown PRM 'embedded'"),
        ("hf:a\0/b@x", "unknown PRM 'x'"),
        ("hf:a/b@sal", "sal is a layout: it stands behind a name, as in hf:PATH@qwen:sal"),
        ("hf:a/b:paper", "a layout stands behind the name of a PRM, as in hf:PATH@qwen:paper"),
        ("hf:a/b@qwen:papr", "unknown layout of qwen 'papr': did you mean 'paper'"),
        ("hf:a/b@trl:paper", "unknown layout of trl 'paper': known are official"),
        ("hf:a/b@qwen:", "no layout is named behind the colon: qwen has official, paper, sal"),
        ("sglang:http://host:30000@skywork-2b", "unknown PRM 'skywork-2b': did you mean"),
        ("sglang:http://host:30000@skywork-1.6b", "unknown PRM 'skywork-1.6b': did you mean"),
    ],
)
def test_a_mistake_in_a_spec_is_a_sentence_that_says_how_to_write_it(spec, said):
    with pytest.raises(UsageError) as error:
        parse_prm(spec)
    assert said in str(error.value)
    assert error.value.exit_code == 2


def test_a_sign_in_the_name_of_a_folder_that_is_there_belongs_to_it(tmp_path):
    for name in ("model@v2", "model@qwen", "other", "other@trl"):
        (tmp_path / name).mkdir()
    assert parse_prm(f"hf:{tmp_path}/model@v2") == PRMSpec("hf", f"{tmp_path}/model@v2")
    assert parse_prm(f"hf:{tmp_path}/model@qwen") == PRMSpec("hf", f"{tmp_path}/model@qwen")
    assert parse_prm(f"hf:{tmp_path}/model@v2@skywork") == PRMSpec("hf", f"{tmp_path}/model@v2", "skywork")
    assert parse_prm(f"hf:{tmp_path}/other@trl") == PRMSpec(
        "hf", f"{tmp_path}/other", "trl"
    )  # both are there: the name


def test_the_class_of_a_folder_is_read_from_its_config(tmp_path):
    assert specs.architecture(tmp_path) == ""
    for text, found in [
        (json.dumps({"architectures": ["Qwen2ForPrmModel"]}), "Qwen2ForPrmModel"),
        (json.dumps({"architectures": []}), ""),
        (json.dumps({"architectures": None}), ""),
        (json.dumps({"architectures": [3]}), ""),
        ("[]", ""),
        ("{", ""),
        ("\ud800", ""),
    ]:
        (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        assert specs.architecture(tmp_path) == found


def test_an_unknown_checkpoint_says_how_to_name_it():
    said = str(specs.unknown_checkpoint("a/b", "LlamaForCausalLM"))
    assert said.startswith(
        "it is not known which PRM a/b (class LlamaForCausalLM) is: name it behind an @, as in hf:PATH@"
    )
    assert "`tts-tui profiles`" in said
    assert all(adapter in said for adapter in profiles.adapters())
    assert "class" not in str(specs.unknown_checkpoint("a/b"))
