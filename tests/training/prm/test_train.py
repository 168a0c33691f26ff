"""`tts-tui train-prm`: one call makes a PRM, the next one goes on, and mistakes are said before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.backends import tiny
from tests.backends.adapter.test_reward_model import request
from tts_tui.backends.adapter import file as adapter_file
from tts_tui.backends.adapter.reward_model import AdapterPRM
from tts_tui.backends.local.policy import LocalPolicy
from tts_tui.cli import main
from tts_tui.errors import BackendError, TTSError, UnknownName, UsageError
from tts_tui.evaluation.datasets.data_files import Columns
from tts_tui.evaluation.datasets.families import TRAINED, UNSEEN, problems, split_of
from tts_tui.evaluation.own import read_problems
from tts_tui.evaluation.samples import SampleCache, SamplingSettings, sample_all
from tts_tui.training.prm import train as run_module
from tts_tui.training.prm.fit import Recipe
from tts_tui.training.prm.train import TrainConfig, check, chosen, command, train

QUICK = Recipe(tokens=4000, batch=300, learning_rate=1e-2, warmup=2)


def write(path: Path, count: int = 24, answer: str = "7") -> Path:
    lines = [json.dumps({"problem": f"What is {a} + {7 - a}?", "answer": answer}) for a in range(count)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def guesser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says one step, and then 7 or 8, whatever it is asked."""
    begin = (*tiny.ids_of("\na"), tiny.piece("\n\n"))
    model = tiny.parrot(*((*begin, *tiny.ids_of(f"\\boxed{{{n}}}"), tiny.EOS) for n in (7, 8)))
    with torch.no_grad():  # what tells the two apart, so that an adapter can learn which one is right
        model.lm_head.weight.add_(
            0.02 * torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
        )
        model.lm_head.weight[[*tiny.ids_of("78")], tiny.ids_of("{")[0]] = 1.0
    return tiny.save(model, tmp_path_factory.mktemp("guesser"))


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_LOOKED_AT", 200)


def wish(folder: Path, **changes: object) -> TrainConfig:
    return TrainConfig(folder / "prm.safetensors", folder / "work", **changes)  # type: ignore[arg-type]


# --- what is refused --------------------------------------------------------------------------------------------------

MISTAKES = [
    ({"families": ("add0", "ad1")}, UnknownName, "unknown problem family 'ad1'"),
    ({"families": (UNSEEN[0],)}, UsageError, f"the family {UNSEEN[0]} is only tested on: `tts-tui families` says"),
    ({"policy": "sglang:http://x"}, UsageError, "model in this process, not on 'sglang:http://x': embedded or hf:PATH"),
    ({"policy": "openai:x#y"}, UsageError, "model in this process"),
    ({"policy": "embeded"}, UsageError, "model in this process"),
    ({"policy": "hf:"}, UsageError, "names no model"),
    ({"own": "missing.jsonl"}, UsageError, "cannot read missing.jsonl: No such file or directory"),
    ({"out": "prm.bin"}, UsageError, "written to a file that ends with .safetensors, not to prm.bin"),
    ({"out": "folder.safetensors"}, UsageError, "written to a file that ends with .safetensors, not to folder"),
    ({"out": "file/a.safetensors"}, UsageError, "--out cannot be written: file is no folder"),
    ({"work_dir": "file/in/it"}, UsageError, "--work-dir cannot be written: file is no folder"),
]


@pytest.mark.parametrize(
    ("changes", "kind", "says"), MISTAKES, ids=lambda part: str(part) if type(part) is dict else ""
)
def test_what_cannot_be_trained_is_refused(
    changes: dict, kind: type, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.safetensors").mkdir()
    Path("file").touch()
    paths = {name: Path(value) for name, value in changes.items() if name in ("own", "out", "work_dir")}
    with pytest.raises(kind) as caught:
        check(TrainConfig(**{"out": Path("a.safetensors"), "work_dir": Path("work"), **changes, **paths}))
    assert says in str(caught.value)


def test_what_can_be_trained_is_not(tmp_path: Path) -> None:
    check(wish(tmp_path))
    check(wish(tmp_path, policy="hf:some/model", families=TRAINED))
    check(wish(tmp_path, own=write(tmp_path / "own.jsonl")))
    assert [file.name for file in tmp_path.iterdir()] == ["own.jsonl"]


FILES = [
    (b'{"problem": "1 + 1?"}', "{} has no answer column, such as answer or final_answer: it has problem; say which"),
    (b'{"problem": "1 + 1?", "answer": "  "}', "line 1 of {} has no answer"),
    (b'{"problem": "1 + 1?", "solution": ["2"], "final_answer": []}', "line 1 of {} has no answer"),
    (b'{"problem": "1 + 1?", "answer": "We add 1.\\nThat is 2."}', "line 1 of {} has a whole solution for an answer"),
    (b'{"problem": "1 + 1?", "answer": "2", "Answer": "2"}', "line 1 of {} has several columns that may be meant"),
    (b'{"problem": "1 + 1?", "answer": "1 + 1 = 2 #### "}', "line 1 of {} has no answer"),
    (b'{"problem": "1 + 1?", "answer": "$."}', "line 1 of {} has an answer that says nothing: '$.'"),
    (b'{"answer": "2"}', "line 1 of {} has no problem: its columns are answer"),
    (b'{"problem": " ", "answer": "2"}', "line 1 of {} has a problem without text"),
    (b'\n{"problem": "1?", "answer": 1}\nWhat is 2?', "line 3 of {} is no JSON: write one object a line"),
    (b'["1 + 1?", "2"]', "line 1 of {} is no object"),
    (b'{"problem": "1 + 1?", "answer": "2"}', "{} has too few problems to train and to validate on: 1; give 20"),
    (b"", "{} has too few problems to train and to validate on: 0"),
    (b"caf\xe9", "line 1 of {} is not text: it is not in UTF-8"),
]


@pytest.mark.parametrize(("content", "says"), FILES, ids=lambda part: part if type(part) is str else "")
def test_a_file_that_holds_no_problems_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        check(wish(tmp_path, own=path))
    assert str(caught.value).startswith(says.format(path))


def test_columns_of_a_file_of_problems_are_chosen(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("".join(f'{{"task": "{n} + 1?", "answer": "no", "sum": {n + 1}}}\n' for n in range(40)))
    with pytest.raises(UsageError, match="--problem-column"):
        check(wish(tmp_path, own=path))
    columns = Columns("task", "sum")
    check(wish(tmp_path, own=path, columns=columns))
    assert {each.question: each.answer for each in read_problems(path, columns)}["4 + 1?"] == "5"
    wanted = wish(tmp_path, own=path, columns=columns)
    assert command(wanted) == "tts-tui train-prm --problems own.jsonl --problem-column task --answer-column sum"
    with pytest.raises(UsageError, match="--problem-column is for a data file"):
        check(wish(tmp_path, columns=columns))


def test_problems_are_given_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="given twice: with --families and with --problems"):
        check(wish(tmp_path, own=write(tmp_path / "own.jsonl"), families=("add0",)))


def test_problems_of_ones_own_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", 40)
    path.write_text(
        "\ufeff"
        + path.read_text()
        + '\n\n{"question": " Why? ", "expected_answer": 1.5}\n{"question": "5?", "answer": "2+3=5\\n#### 5"}\n'
        + path.read_text(),
        "utf-8",
    )
    found = read_problems(path)
    assert len(found) == 42  # each once
    assert {each.family for each in found} == {"own"}
    (asked,) = (each for each in found if each.question == "Why?")
    assert asked.answer == "1.5"
    assert [each.answer for each in found if each.question == "5?"] == ["5"]  # as GSM8K has it
    for split in ("train", "validation"):
        assert [each.index for each in found if each.split == split] == list(
            range(sum(each.split == split for each in found))
        )
    # A problem never changes its side, whatever else is in the file.
    sides = {each.question: each.split for each in found}
    fewer = read_problems(write(tmp_path / "other.jsonl", 30))
    assert all(sides[each.question] == each.split for each in fewer)
    assert sum(side == "validation" for side in sides.values()) < len(sides) / 2


def test_what_is_sampled(tmp_path: Path) -> None:
    found = chosen(wish(tmp_path, families=("add0", "word2"), problems=6, samples=3))
    assert found == {
        "train": [(each, 3) for name in ("add0", "word2") for each in problems(name, "train", 6)],
        "validation": [(each, 6) for name in ("add0", "word2") for each in problems(name, "validation", 4)],
    }
    everything = chosen(wish(tmp_path, problems=3))
    assert {each.family for each, _ in everything["train"]} == set(TRAINED)
    assert all(split_of(each.family, each.question) == split for split, own in everything.items() for each, _ in own)
    path = write(tmp_path / "own.jsonl")
    mine = chosen(wish(tmp_path, own=path, samples=3))
    assert [pair for own in mine.values() for pair in own] != []
    assert {count for _, count in mine["train"]} == {3} and {count for _, count in mine["validation"]} == {6}
    assert len(mine["train"]) + len(mine["validation"]) == len(read_problems(path))


# --- a whole training -------------------------------------------------------------------------------------------------


def test_a_training_makes_a_prm_that_tells_right_from_wrong(
    guesser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = wish(
        tmp_path,
        policy=f"hf:{guesser}",
        own=write(tmp_path / "own.jsonl"),
        samples=2,
        rollouts=1,
        first_layer=0,
        rank=4,
        recipe=QUICK,
        threads=1,
    )
    told: list[str] = []
    figures = train(wanted, told.append)
    assert told[0] == f"loading hf:{guesser}"
    for start in (
        "samples: 24 of 24 problems",
        "rollouts: ",
        "training: ",
        "reading the train samples: 100%",
        "done",
    ):
        assert any(line.startswith(start) for line in told), (start, told)
    everything = figures["validation"]["all"]
    # Right and wrong solutions differ by one token, which the policy guesses and the adapter knows.
    assert 0.2 < everything["pass@1"] < 0.8 and everything["mixed"] >= 2
    assert everything["auc_within"] == 1.0 and everything["prm-max"] == everything["pass@k"]
    assert figures["validation"]["own"] == everything
    assert json.loads(wanted.out.with_suffix(".json").read_text()) == figures
    samples = figures["samples"]["train"]
    assert samples["solutions"] == 2 * samples["problems"] and 0 < samples["right"] < samples["solutions"]
    assert samples["rollouts"] > 0 and figures["samples"]["validation"]["rollouts"] == 0

    head = adapter_file.peek(wanted.out)
    assert (head.base, head.shape) == (wanted.policy, adapter_file.Shape(1, 0, 4))
    assert head.defaults == figures["defaults"]
    about = json.loads(head.about)
    assert about["command"] == command(wanted) and about["samples"] == figures["samples"]
    assert str(tmp_path) not in about["command"].replace(wanted.policy, "")

    # Called again, nothing is sampled and nothing trained.
    before = adapter_file.load(wanted.out)

    async def sampled_again(*_: object):
        pytest.fail("sampled again")
        yield

    monkeypatch.setattr(LocalPolicy, "stream", sampled_again)
    monkeypatch.setattr(run_module.Fit, "_step", lambda *_: pytest.fail("trained again"))
    assert train(wanted, lambda line: None) == figures
    after = adapter_file.load(wanted.out)
    assert after.head == before.head and after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(after.tensors[name], before.tensors[name]) for name in before.tensors)


async def test_what_was_trained_can_be_used(guesser: Path, tmp_path: Path) -> None:
    wanted = wish(
        tmp_path,
        policy=f"hf:{guesser}",
        own=write(tmp_path / "own.jsonl"),
        samples=2,
        rollouts=0,
        first_layer=0,
        recipe=QUICK,
    )
    import asyncio

    await asyncio.to_thread(train, wanted, lambda line: None)
    prm = AdapterPRM(path=wanted.out, threads=1)
    await prm.start()
    try:
        paths = [request("a\n\n", f"\\boxed{{{answer}}}", problem="What is 3 + 4?") for answer in (7, 8)]
        right, wrong = await prm.score(paths)
    finally:
        await prm.close()
    assert right.score > wrong.score


async def test_another_number_of_rollouts_is_not_that_of_the_last_call(guesser: Path, tmp_path: Path) -> None:
    asked = [one for one in read_problems(write(tmp_path / "own.jsonl")) if one.split == "train"]
    policy = LocalPolicy(guesser, dtype="float32", kv_tokens=500, threads=1)
    await policy.start()
    try:
        cache = SampleCache(tmp_path / "samples", SamplingSettings("guesser"))
        sampled = await sample_all(policy, [(one, 2) for one in asked], cache)
        for count in (1, 3):
            rolled = await run_module._rolled(policy, sampled, cache, count, lambda line: None)
            stored = [cache.load(one, 2) for one in asked]
            assert rolled == stored
            assert {rollouts.total for one in rolled for rollouts in one.rollouts} == {count}
            sampled = rolled
        without = await run_module._rolled(policy, sampled, cache, 0, lambda line: None)
        assert not any(one.rollouts for one in without) and [cache.load(one, 2) for one in asked] == stored
    finally:
        await policy.close()


async def test_what_fails_while_sampling_is_said_as_it_is(guesser: Path, tmp_path: Path) -> None:
    asked = [(one, 2) for one in read_problems(write(tmp_path / "own.jsonl"))]
    policy = LocalPolicy(guesser, dtype="float32", kv_tokens=500, threads=1)
    await policy.start()
    try:
        with pytest.raises(NotADirectoryError):
            await sample_all(
                policy, asked, SampleCache(tmp_path / "own.jsonl" / "samples", SamplingSettings("guesser"))
            )
        await policy.engine.close()
        with pytest.raises(BackendError, match="the engine was closed"):
            await sample_all(policy, asked, SampleCache(tmp_path / "samples", SamplingSettings("guesser")))
    finally:
        await policy.close()


def test_a_policy_that_solves_nothing_cannot_be_learned_from(guesser: Path, tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", answer="9")
    wanted = wish(tmp_path, policy=f"hf:{guesser}", own=own, samples=2, rollouts=0, first_layer=0, recipe=QUICK)
    with pytest.raises(UsageError, match="the policy solves none of the problems: there is no right solution"):
        train(wanted, lambda line: None)
    assert not wanted.out.exists()


def test_what_cannot_be_adapted_is_refused_before_anything_is_sampled(
    guesser: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalPolicy, "stream", lambda *_: pytest.fail("sampled"))
    wanted = wish(tmp_path, policy=f"hf:{guesser}", own=write(tmp_path / "own.jsonl"), first_layer=5, recipe=QUICK)
    with pytest.raises(TTSError, match=r"there is no layer 5 to adapt from: hf:.* has layers 0 to 0"):
        train(wanted, lambda line: None)
    long = write(tmp_path / "long.jsonl")
    with long.open("a") as file:
        file.write(json.dumps({"problem": "Why? " * 300, "answer": "7"}) + "\n")
    with pytest.raises(UsageError, match=r"a problem has \d+ tokens and the context .* out of the file \(Why\? Why"):
        train(wish(tmp_path, policy=wanted.policy, own=long, first_layer=0, recipe=QUICK), lambda line: None)
    with pytest.raises(TTSError, match="nowhere"):
        train(wish(tmp_path, policy="hf:./nowhere", own=wanted.own), lambda line: None)


@pytest.mark.embedded
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_embedded_model_is_trained_on_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(tokens=2000, batch=800)
    wanted = wish(tmp_path, families=("add0",), problems=3, samples=2, rollouts=1, first_layer=26, recipe=recipe)
    figures = train(wanted, lambda line: None)
    assert figures["validation"]["add0"]["problems"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prm.json", "prm.safetensors", "work"]
    assert adapter_file.peek(wanted.out).base == "embedded"

    async def sampled_again(*_: object):
        pytest.fail("sampled again")
        yield

    monkeypatch.setattr(LocalPolicy, "stream", sampled_again)
    monkeypatch.setattr(run_module.Fit, "_step", lambda *_: pytest.fail("trained again"))
    assert train(wanted, lambda line: None) == figures


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_help_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["train-prm", "--help"]) == 0
    said = capsys.readouterr().out
    options = ("policy", "families", "problems", "out", "work-dir", "tokens", "learning-rate", "rank", "first-layer")
    for name in (*options, "samples", "rollouts", "max-solution-tokens", "seed", "threads"):
        assert f"--{name} " in said, name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--families", "ad0"], "did you mean 'add0'?"),
        (["--families", "pct"], "the family pct is only tested on"),
        (["--policy", "sglang:http://x"], "a prm is trained on a model in this process"),
        (["--problems", "/does/not/exist"], "cannot read /does/not/exist: no such file"),
        (["--out", "prm.bin"], "ends with .safetensors"),
        (["--tokens", "10"], "10 is not in the range"),
        (["--learning-rate", "0"], "0 is not in the range"),
        (["--family", "add0"], "did you mean '--families'?"),
        (["add0"], "unexpected extra argument"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "train", lambda *_: pytest.fail("it would have been trained"))
    code = main.run(["train-prm", *arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("tts-tui: ") and err.count("\n") == 1
    assert says in err.lower()


def test_the_command_wishes_for_what_was_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wishes: list[TrainConfig] = []
    everything = {"problems": 8, "auc_within": 0.9, "pass@1": 0.3, "majority": 0.4, "prm-max": 0.6, "pass@k": 0.7}

    def trained(wish: TrainConfig, tell: object) -> dict:
        wishes.append(wish)
        return {"validation": {"all": everything}, "defaults": {"score": "min", "vote": "prm-max"}}

    monkeypatch.setattr(run_module, "train", trained)
    monkeypatch.chdir(tmp_path)
    given = "--families add0,mul1 --samples 4 --rollouts 0 --max-solution-tokens 99 --first-layer 3 --rank 8"
    given += " --tokens 5000 --learning-rate 0.01 --seed 2"
    assert main.run(["train-prm", *given.split(), "--threads", "1", "--out", "a.safetensors"]) == 0
    out, err = capsys.readouterr()
    assert "on 8 validation problems: AUC within problems 0.9" in out and "--prm adapter:a.safetensors" in out
    assert "kept in a.safetensors.work" in err
    (wanted,) = wishes
    assert wanted == TrainConfig(
        Path("a.safetensors"),
        Path("a.safetensors.work"),
        families=("add0", "mul1"),
        samples=4,
        rollouts=0,
        max_solution_tokens=99,
        first_layer=3,
        rank=8,
        recipe=Recipe(tokens=5000, learning_rate=0.01, seed=2),
        threads=1,
    )
    assert command(wanted) == f"tts-tui train-prm {given}"
    assert main.run(["train-prm"]) == 0
    assert wishes[1] == TrainConfig(Path("prm.safetensors"), Path("prm.safetensors.work"))
    assert command(wishes[1]) == "tts-tui train-prm"
    assert main.run(["train-prm", "--policy", "hf:a/b", "--problems", str(write(tmp_path / "own.jsonl"))]) == 0
    assert command(wishes[2]) == "tts-tui train-prm --policy hf:a/b --problems own.jsonl"
    assert main.run(["train-prm", "--work-dir", "elsewhere"]) == 0
    assert wishes[3].work_dir == Path("elsewhere")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left on device", "a.part"), "a.part: No space left on device"),
        (OSError("a.part cannot be written: full"), "a.part cannot be written: full"),
    ],
)
def test_a_full_disk_is_one_sentence(
    error: OSError, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(run_module, "train", fails)
    monkeypatch.chdir(tmp_path)
    assert main.run(["train-prm", "--work-dir", "kept"]) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"({says})" in last and last.endswith("kept")
