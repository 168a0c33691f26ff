"""Options of the command line that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click import option

F = TypeVar("F", bound=Callable[..., Any])

DISPLAYS = ("tui", "live", "plain", "json", "none")


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator."""

    def apply(command: F) -> F:
        for decorate in reversed(decorators):
            command = decorate(command)
        return command

    return apply


def api_key(help: str) -> Callable[[F], F]:
    """The option --api-key. A secret is kept in one variable for all commands, which tools for secrets can set."""
    return option("--api-key", metavar="KEY", envvar="TTS_TUI_API_KEY", allow_from_autoenv=False, help=help)


model_specs = options(
    option(
        "--policy",
        metavar="SPEC",
        help="Language model: embedded, hf:PATH, hf:ORG/NAME, sglang:URL or openai:URL#MODEL.  [default: embedded]",
    ),
    option(
        "--prm",
        metavar="SPEC",
        help="Process reward model: embedded, none, adapter:FILE, hf:PATH, hf:ORG/NAME or sglang:URL; @NAME behind it "
        "says which of `tts-tui profiles` it is, @NAME:LAYOUT how its input is laid out (official, paper, sal).  "
        "[default: embedded]",
    ),
    option(
        "--prm-tokenizer",
        metavar="PATH",
        help="Tokenizer of a reward model on a server.  [default: from where the server has it]",
    ),
    option(
        "--allow-pickle",
        is_flag=True,
        help="Load a reward model's pickled weights, too, which can run code.  [default: safetensors only]",
    ),
    api_key("Key for the models' servers; better kept in TTS_TUI_API_KEY.  [default: none]"),
)
rate = option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="Most requests to the policy's server that begin in a second.  [default: no limit]",
)
models = options(
    model_specs,
    option(
        "--concurrency",
        type=click.IntRange(min=1),
        help="Most requests that the policy's server has at once.  [default: as many as it gains from]",
    ),
    rate,
)
limits = options(
    option("--budget-tokens", type=int, help="Stop after this many computed tokens.  [default: no limit]"),
    option("--timeout", type=float, metavar="SECONDS", help="Stop after this time.  [default: no limit]"),
)
calibration = option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What auto chooses by.  [default: the calibration of these models, yours or the shipped one, else priors]",
)
display = option(
    "--display",
    type=click.Choice(DISPLAYS),
    help="tui opens the terminal UI, live draws the tree, plain tells it in lines, json prints one event a line, none "
    "prints the answer alone.  [default: live on a terminal, plain off it]",
)
problem_column = option(
    "--problem-column",
    metavar="NAME",
    help="Column of a data file that holds the problems.  [default: problem, question or prompt, whichever is there]",
)
columns = options(
    problem_column,
    option(
        "--answer-column",
        metavar="NAME",
        help="Column of a data file that holds the answers.  [default: answer, final_answer, expected_answer and the "
        "like, whichever is there]",
    ),
)
plan = options(
    option("--strategy", metavar="NAME", default="best-of-n", show_default=True, help="See `tts-tui strategies`."),
    option(
        "--n",
        "-n",
        type=int,
        help="Budget of candidates; for auto the most.  [default: 16; 1 for cot, 64 for auto]",
    ),
    option("--m", "-m", type=int, help="Beam width; must divide N.  [default: 4]"),
    option(
        "--score",
        metavar="NAME",
        help="Score of a path: min, last, avg or prod of its steps.  [default: suits the PRM]",
    ),
    option(
        "--vote", metavar="NAME", help="Vote of the solutions: majority, prm-max or prm-vote.  [default: suits the PRM]"
    ),
    option("--variant", metavar="NAME", help="Where implementations differ: official or sal.  [default: official]"),
    option(
        "--speculation",
        metavar="WHEN",
        help="Write steps on while their round waits for others: auto, on or off.  [default: auto, where a server has "
        "room for it]",
    ),
    option("--temperature", type=float, help="Randomness of the sampling.  [default: 0.7; 0 for cot]"),
    option("--top-p", type=float, help="Draw only from the likeliest tokens up to this share.  [default: 1]"),
    option("--step-tokens", type=int, help="Most tokens of a step.  [default: 2048; 256 for the embedded model]"),
    option("--total-tokens", type=int, help="Most tokens of a path.  [default: 8192; 512 for the embedded model]"),
    option("--max-depth", type=int, help="Most steps of a path.  [default: 40]"),
    option("--seed", type=int, help="Seed of all samples.  [default: 0]"),
    option("--budget-flops", type=float, help="Stop after this many FLOPs.  [default: no limit]"),
    option(
        "--target-tokens",
        type=int,
        help="What auto may spend on a problem on average; more where it helps.  [default: what the calibration says]",
    ),
    option(
        "--target-accuracy",
        type=float,
        metavar="SHARE",
        help="Share of right answers that auto is to reach as cheaply as it can, such as 0.8; not with --target-tokens.  "
        "[default: none]",
    ),
    calibration,
)
training = options(
    option(
        "--policy",
        metavar="SPEC",
        default="embedded",
        show_default=True,
        help="The model whose steps it shall judge, and on whose weights it is made: embedded, hf:PATH or hf:ORG/NAME.",
    ),
    option(
        "--families",
        metavar="NAMES",
        help="Problem families to train on, with commas between; see `tts-tui families`.  [default: all that may be]",
    ),
    option(
        "--problems",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help='Problems of your own instead: one JSON object a line, with "problem" and "answer".  [default: families]',
    ),
    columns,
    option(
        "--out",
        type=click.Path(path_type=Path),
        default="prm.safetensors",
        show_default=True,
        metavar="FILE",
        help="File of the PRM, for --prm adapter:FILE; its figures go beside it (.json).",
    ),
    option(
        "--work",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Where samples and the state of the training are kept.  [default: OUT with .work behind it]",
    ),
    option("--tokens", type=click.IntRange(min=1000), help="Tokens to train on.  [default: 800000]"),
    option("--rate", type=click.FloatRange(min=0, min_open=True), help="Highest learning rate.  [default: 0.001]"),
    option("--rank", type=click.IntRange(1, 256), default=16, show_default=True, help="Rank of the adapter."),
    option("--first", type=click.IntRange(min=0), help="First layer to adapt.  [default: after the first quarter]"),
    option(
        "--samples",
        type=click.IntRange(2, 64),
        default=8,
        show_default=True,
        help="Solutions of each training problem; twice as many where it is validated.",
    ),
    option(
        "--rollouts",
        type=click.IntRange(0, 64),
        default=2,
        show_default=True,
        help="Continuations of each beginning about whose rightness the program cannot tell.",
    ),
    option(
        "--longest",
        type=click.IntRange(min=16),
        help="Most tokens of a sampled solution.  [default: 160, of --problems 1024]",
    ),
    option("--seed", type=int, help="Seed of the texts and the adapter.  [default: 0]"),
    option("--threads", type=click.IntRange(min=1), help="Cores to use on a CPU.  [default: all]"),
)
served = options(
    click.argument("model"),
    click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- SGLANG FLAGS]"),
    option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 is all."),
    option("--port", type=click.IntRange(1, 65535), default=30000, show_default=True, help="Port to listen on."),
    option("--context-length", type=click.IntRange(min=1), help="Longest sequence.  [default: what the model says]"),
    api_key("What clients must send; better kept in TTS_TUI_API_KEY.  [default: none]"),
    option(
        "--python",
        envvar="TTS_TUI_SGLANG_PYTHON",
        allow_from_autoenv=False,
        metavar="PATH",
        help="A Python that has SGLang; the environment has it as TTS_TUI_SGLANG_PYTHON.  [default: this one]",
    ),
    option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="What to compute on.  [default: a GPU where there is one]",
    ),
)
states = option(
    "--states",
    is_flag=True,
    help="Have the server show the hidden states by which auto may tell how hard a problem is; on a GPU they take some "
    "memory.  [default: on a CPU only]",
)
