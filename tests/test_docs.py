"""The documentation is correct: commands, options and variables exist, programs run, the reference is complete."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

import tts_tui
from tts_tui import registry
from tts_tui.cli.main import cli
from tts_tui.evaluation import plan_specs

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECORDINGS = ROOT / "tests" / "ui" / "recordings"

MARKS = ("needs a GPU", "needs a server", "needs a model", "opens the terminal UI", "takes ")
"""The prefixes of a line's comment that mark commands that no test runs."""
OTHER_PROGRAMS = {"pip", "jq", ".venv/bin/python", ".venv/bin/pre-commit"}
OTHER_OPTIONS = {
    "--bars", "--its-hub", "--kills", "--real",  # benchmarks
    "--chunked-prefill-size", "--enable-deterministic-inference", "--enable-return-hidden-states",  # SGLang
    "--preferred-sampling-params", "--worker-urls",
}  # fmt: skip
OTHER_VARIABLES = {
    "TTS_TUI_API_KEY", "TTS_TUI_CONFIG", "TTS_TUI_DEBUG", "TTS_TUI_HOME", "TTS_TUI_SGLANG_PYTHON",
}  # fmt: skip
SPECS = {"embedded", "none", "adapter", "hf", "sglang", "openai", "my-server", "my-name"}


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    kind: str
    text: str
    runnable: bool


class Command(NamedTuple):
    """One command in a line of a block, without redirections; `note` is the comment on the line."""

    place: str
    words: list[str]
    note: str

    @property
    def marked(self) -> bool:
        return self.note.startswith(MARKS)


def blocks(page: Path, *kinds: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^(<!-- runnable -->\n)?```(\w+)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    name = str(page.relative_to(ROOT))
    return [
        Block(name, text.count("\n", 0, match.start(3)), match[2], match[3], match[1] is not None)
        for match in found
        if match[2] in kinds
    ]


def commands(page: Path) -> Iterator[Command]:
    for block in blocks(page, "console", "sh", "bash"):
        joined = block.text.replace("\\\n", " ")
        for line in joined.splitlines():
            code, _, note = re.sub(r"(^|\s)#\s", "\0", line.removeprefix("$ "), count=1).partition("\0")
            for part in re.split(r"\s[|;]\s|&&", code):
                words = shlex.split(re.sub(r"\s[<>]\s*\S+", "", part))
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words = words[1:]
                if words:
                    yield Command(f"{block.page}:{block.line}", words, note.strip())


def inline(page: Path) -> list[str]:
    """Return the inline code of a page."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose)


def leaf(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command-line command with which `words` start, and the words after it."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    return command, words


def leaves(group: click.Group, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*names, name), command
        if isinstance(command, click.Group):
            yield from leaves(command, (*names, name))


def options_of(command: click.Command) -> set[str]:
    return {"--help", "-h", *(name for option in command.params for name in option.opts if name.startswith("-"))}


ALL_OPTIONS = options_of(cli) | {option for _, command in leaves(cli) for option in options_of(command)}
ALL = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES]


# --- commands ---------------------------------------------------------------------------------------------------------


def check_cli(words: list[str]) -> None:
    command, rest = leaf(words)
    assert not isinstance(command, click.Group) or not rest or rest[0].startswith("-"), f"no command {rest[0]!r}"
    try:
        context = command.make_context(command.name or "", list(rest))
    except click.exceptions.Exit:  # --help, --version
        return
    given = context.params
    if given.get("strategy"):
        registry.strategy(given["strategy"])
    for plan in given.get("plan") or ():
        plan_specs.parse(plan)
    for spec in (given.get("policy"), given.get("prm")):
        assert spec is None or spec.partition(":")[0] in SPECS, f"no model {spec!r}"


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([\w-][\w./-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for word in words:
        assert "=" in word or word in targets, f"no target {word!r}"


def check_python(words: list[str]) -> None:
    if words[0] == "-m":
        try:
            found = importlib.util.find_spec(words[1])
        except ModuleNotFoundError:  # its package is missing too
            found = None
        assert found is not None, f"no module {words[1]}"
    else:
        assert (ROOT / words[0]).is_file(), f"no file {words[0]}"


@pytest.mark.parametrize("page", ALL)
def test_every_command_that_is_shown_exists(page):
    for place, words, note in commands(page):
        try:
            match words[0]:
                case "tts-tui":
                    check_cli(words[1:])
                case "make":
                    check_make(words[1:])
                case "python" if not note.startswith("needs a server"):
                    check_python(words[1:])
                case head:
                    assert head == "python" or head in OTHER_PROGRAMS, f"no program {head!r}"
        except (AssertionError, click.ClickException, tts_tui.TTSError) as error:
            raise AssertionError(f"{place}: {shlex.join(words)}: {error}") from error


@pytest.mark.parametrize("page", ALL)
def test_a_command_that_needs_a_server_or_a_gpu_says_so(page):
    for place, words, note in commands(page):
        said = " ".join(words)
        if re.search(r"(sglang|openai):http|doctor http", said):
            assert note.startswith("needs a server"), f"{place}: {said}"
        if words[0] == "tts-tui" and re.search(r"\bserve (policy|prm)\b|hf:[A-Z]\w+/", said):
            assert note.startswith("needs a GPU"), f"{place}: {said}"


@pytest.mark.parametrize("page", ALL)
def test_commands_options_and_modules_inside_sentences_exist(page):
    if page.name == "changelog.md":
        return
    for code in inline(page):
        words = code.split()
        options = {word.partition("=")[0].rstrip(",") for word in words if re.match(r"--\w", word)}
        if words[0] == "tts-tui":
            command, _ = leaf(words[1:])
            if "--" not in words:
                assert options <= options_of(command), f"`{code}`"
        elif words[0] == "make":
            check_make(shlex.split(code)[1:])
        elif words[:2] == ["python", "-m"]:
            check_python(words[1:])
        elif "benchmarks" not in code:
            assert options <= ALL_OPTIONS | OTHER_OPTIONS, f"`{code}`"


@pytest.mark.parametrize("page", ALL)
def test_environment_variables_that_are_named_set_something(page):
    own = {
        "_".join(("TTS_TUI", *names, str(option.name))).upper().replace("-", "_")
        for names, command in leaves(cli)
        for option in command.params
        if isinstance(option, click.Option)
    }
    named = set(re.findall(r"TTS_TUI_[A-Z0-9_]+", page.read_text(encoding="utf-8")))
    assert named <= own | OTHER_VARIABLES


def runs(page: Path) -> list[Command]:
    return [one for one in commands(page) if one.words[0] == "tts-tui" and not one.marked]


def provide(words: list[str], folder: Path) -> None:
    """Create the files that a command reads, unless an earlier command has created them."""
    recording = next(iter(sorted(RECORDINGS.glob("*.jsonl"))))
    for before, word in zip(["", *words], words, strict=False):
        path = folder / word
        if before in ("--record", "--out") or path.exists():
            continue
        if word.startswith("mine."):
            path.write_text('{"problem": "What is 2 + 3?", "answer": "5"}\n')
        elif word == "problem.txt":
            path.write_text("What is 2 + 3?")
        elif word.endswith(".jsonl"):
            shutil.copy(recording, path)
        elif word == "other-run":
            shutil.copytree(folder / "run", path)


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if runs(page)])
def test_the_commands_of_a_page_run_one_after_another(page, tmp_path):
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    for command in runs(page):
        provide(command.words, tmp_path)
        done = subprocess.run(
            [sys.executable, "-m", "tts_tui", *command.words[1:]],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        answers = (0, 1) if command.words[1] in ("solve", "resume") else (0,)
        assert done.returncode in answers, f"{command.place}: {shlex.join(command.words)}\n{done.stderr}"


FUTURE = {"backends/my_server/policy.py", "strategies/my_strategy.py"}
"""Files that a reader is asked to write."""


@pytest.mark.parametrize("page", ALL)
def test_files_of_the_repository_that_are_named_exist(page):
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for code in inline(page):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", code) and "/" in code and code.partition("/")[0] in rooms - {"build"}:
            assert code in FUTURE or (ROOT / code).exists(), code


# --- programs and data ------------------------------------------------------------------------------------------------


PROGRAMS = [pytest.param(block, id=f"{block.page}:{block.line}") for page in PAGES for block in blocks(page, "python")]


@pytest.mark.parametrize("block", PROGRAMS)
def test_programs_compile(block):
    compile(block.text, f"{block.page}:{block.line}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.parametrize("block", [program for program in PROGRAMS if program.values[0].runnable])
def test_programs_that_are_marked_as_runnable_run(block, tmp_path):
    done = subprocess.run([sys.executable, "-c", block.text], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_settings_file_of_the_documentation_is_accepted(tmp_path, monkeypatch):
    from tts_tui.cli import config

    shown = blocks(ROOT / "docs" / "how-to" / "settings.md", "toml")
    assert shown
    for block in shown:
        (tmp_path / "config.toml").write_text(block.text, encoding="utf-8")
        monkeypatch.setenv("TTS_TUI_CONFIG", str(tmp_path / "config.toml"))
        assert config.defaults(cli)["solve"]["n"] == 32


# --- the site ---------------------------------------------------------------------------------------------------------


def test_the_reference_has_every_public_name_and_the_errors():
    reference = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: tts_tui\.(\w+)$", reference, re.MULTILINE))
    assert shown == set(tts_tui.__all__) - {"__version__", "TTSError"} | {"errors"}


def test_the_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", ALL)
def test_links_between_files_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text):
        assert re.match(r"https?:", target) or (page.parent / target).exists(), target


def test_the_citation_has_the_version_of_the_package():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited is not None and cited[1] == tts_tui.__version__


def test_the_development_environment_builds_the_documentation():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "tts-tui[docs]" in extras["dev"] and any(need.startswith("mkdocs-material") for need in extras["docs"])
