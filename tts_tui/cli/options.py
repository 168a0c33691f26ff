"""Command-line options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click import option

F = TypeVar("F", bound=Callable[..., Any])

DISPLAYS = ("tui", "live", "plain", "json", "none")


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Combine several options into one decorator."""

    def apply(command: F) -> F:
        for decorate in reversed(decorators):
            command = decorate(command)
        return command

    return apply


def api_key(help: str) -> Callable[[F], F]:
    """Return the option --api-key, which reads one environment variable for all commands."""
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
        help="Process reward model: embedded, none, adapter:FILE, hf:PATH, hf:ORG/NAME or sglang:URL. Append @NAME to "
        "choose one of `tts-tui profiles`, @NAME:LAYOUT to choose its input layout, too (official, paper, sal).  "
        "[default: embedded]",
    ),
    option(
        "--prm-tokenizer",
        metavar="PATH",
        help="Tokenizer of a reward model on a server.  [default: the path that the server reports]",
    ),
    option(
        "--allow-pickle",
        is_flag=True,
        help="Also load pickled weights of a reward model, which can run code.  [default: safetensors only]",
    ),
    api_key("API key for the model servers; prefer TTS_TUI_API_KEY.  [default: none]"),
)
server_limits = options(
    option(
        "--concurrency",
        type=click.IntRange(min=1),
        help="Maximum number of concurrent requests to the policy's server.  [default: found by measuring throughput]",
    ),
    option(
        "--max-rps",
        type=click.FloatRange(min=0, min_open=True),
        help="Maximum number of requests started per second at the policy's server.  [default: no limit]",
    ),
)
models = options(model_specs, server_limits)
limits = options(
    option("--budget-tokens", type=int, help="Stop after computing this many tokens.  [default: no limit]"),
    option("--timeout", type=float, metavar="SECONDS", help="Stop after this many seconds.  [default: no limit]"),
)
calibration = option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Calibration file for --strategy auto.  [default: your own or the shipped one for these models, else priors]",
)
display = option(
    "--display",
    type=click.Choice(DISPLAYS),
    help="tui opens the terminal UI, live draws the tree, plain prints one line per step, json prints one event per "
    "line, none prints only the answer.  [default: live on a terminal, else plain]",
)
problem_column = option(
    "--problem-column",
    metavar="NAME",
    help="Column of a data file that holds the problems.  [default: problem, question or prompt]",
)
columns = options(
    problem_column,
    option(
        "--answer-column",
        metavar="NAME",
        help="Column of a data file that holds the answers.  [default: answer, final_answer, expected_answer and the "
        "like]",
    ),
)
plan = options(
    option(
        "--strategy",
        metavar="NAME",
        default="best-of-n",
        show_default=True,
        help="Search strategy; see `tts-tui strategies`.",
    ),
    option(
        "--n",
        "-n",
        type=int,
        help="Number of candidates (upper bound for auto).  [default: 16; 1 for cot, 64 for auto]",
    ),
    option("--m", "-m", type=int, help="Beam width; must divide N.  [default: 4]"),
    option(
        "--score",
        metavar="NAME",
        help="How step scores combine into a path score: min, last, avg or prod.  [default: depends on the PRM]",
    ),
    option(
        "--vote",
        metavar="NAME",
        help="How solutions vote: majority, prm-max or prm-vote.  [default: depends on the PRM]",
    ),
    option(
        "--variant",
        metavar="NAME",
        help="Implementation to follow where they differ: paper or search-and-learn.  [default: paper]",
    ),
    option(
        "--speculation",
        metavar="WHEN",
        help="Generate next steps speculatively while a round waits: auto, on or off.  [default: auto, i.e. on where a "
        "server has spare capacity]",
    ),
    option("--temperature", type=float, help="Sampling temperature.  [default: 0.7; 0 for cot]"),
    option(
        "--top-p",
        type=float,
        help="Nucleus sampling: sample from the most likely tokens with this total probability.  [default: 1]",
    ),
    option("--step-tokens", type=int, help="Maximum tokens of a step.  [default: 2048; 256 for the embedded model]"),
    option("--total-tokens", type=int, help="Maximum tokens of a path.  [default: 8192; 512 for the embedded model]"),
    option("--max-depth", type=int, help="Maximum steps of a path.  [default: 40]"),
    option("--seed", type=int, help="Seed for sampling.  [default: 0]"),
    option("--budget-flops", type=float, help="Stop after computing this many FLOPs.  [default: no limit]"),
    option(
        "--target-tokens",
        type=int,
        help="Mean tokens per problem that auto aims for.  [default: set by the calibration]",
    ),
    option(
        "--target-accuracy",
        type=float,
        metavar="SHARE",
        help="Accuracy that auto aims for at the lowest cost, such as 0.8; excludes --target-tokens.  [default: none]",
    ),
    calibration,
)
training = options(
    option(
        "--policy",
        metavar="SPEC",
        default="embedded",
        show_default=True,
        help="Model whose steps the PRM scores and whose weights it adapts: embedded, hf:PATH or hf:ORG/NAME.",
    ),
    option(
        "--families",
        metavar="NAMES",
        help="Problem families to train on, separated by commas; see `tts-tui families`.  [default: all]",
    ),
    option(
        "--problems",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help='Train on your own problems: a JSON object per line with "problem" and "answer".  [default: families]',
    ),
    columns,
    option(
        "--out",
        type=click.Path(path_type=Path),
        default="prm.safetensors",
        show_default=True,
        metavar="FILE",
        help="Output file, for --prm adapter:FILE; its metrics are written next to it (.json).",
    ),
    option(
        "--work-dir",
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        help="Folder for samples and training state, to resume from.  [default: OUT.work]",
    ),
    option("--tokens", type=click.IntRange(min=1000), help="Number of training tokens.  [default: 800000]"),
    option(
        "--learning-rate",
        type=click.FloatRange(min=0, min_open=True),
        help="Peak learning rate.  [default: 0.001]",
    ),
    option("--rank", type=click.IntRange(1, 256), default=16, show_default=True, help="Rank of the adapter."),
    option(
        "--first-layer",
        type=click.IntRange(min=0),
        help="First layer to adapt.  [default: after the first quarter of the layers]",
    ),
    option(
        "--samples",
        type=click.IntRange(2, 64),
        default=8,
        show_default=True,
        help="Solutions sampled per problem; twice as many for validation problems.",
    ),
    option(
        "--rollouts",
        type=click.IntRange(0, 64),
        default=2,
        show_default=True,
        help="Rollouts per prefix whose correctness cannot be decided by program.",
    ),
    option(
        "--max-solution-tokens",
        type=click.IntRange(min=16),
        help="Maximum tokens of a sampled solution.  [default: 160; 1024 with --problems]",
    ),
    option("--seed", type=int, help="Seed for the texts and the adapter.  [default: 0]"),
    option("--threads", type=click.IntRange(min=1), help="Number of CPU threads.  [default: all cores]"),
)
served = options(
    click.argument("model"),
    click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- SGLANG FLAGS]"),
    option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all interfaces."),
    option("--port", type=click.IntRange(1, 65535), default=30000, show_default=True, help="Port to listen on."),
    option("--context-length", type=click.IntRange(min=1), help="Maximum sequence length.  [default: from the model]"),
    api_key("API key that clients must send; prefer TTS_TUI_API_KEY.  [default: none]"),
    option(
        "--python",
        envvar="TTS_TUI_SGLANG_PYTHON",
        allow_from_autoenv=False,
        metavar="PATH",
        help="Python interpreter with SGLang installed; also TTS_TUI_SGLANG_PYTHON.  [default: this one]",
    ),
    option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="Device to run on.  [default: a GPU if there is one]",
    ),
)
return_hidden_states = option(
    "--return-hidden-states",
    is_flag=True,
    help="Have the server return hidden states, from which auto predicts how hard a problem is; uses some memory on a "
    "GPU.  [default: on a CPU only]",
)
