"""Commands that serve models with SGLang; `tts_tui.cli.main` has them in its group."""

from __future__ import annotations

from typing import Any

import click

from tts_tui.cli import options as with_


@click.group()
def serve() -> None:
    """Serve a model with SGLang, on a GPU or a CPU, until Ctrl-C.

    SGLang may be in another environment than tts-tui: --python names its Python.
    """


@serve.command("policy")
@with_.served
@with_.states
def serve_policy(model: str, **given: Any) -> int:
    """Serve MODEL (embedded, a folder or a hub id) for --policy. What follows -- goes to SGLang as it is."""
    from tts_tui.cli.serve import serve

    return serve("policy", model, given)


@serve.command("prm")
@with_.served
@click.option("--allow-pickle", is_flag=True, help="Serve pickled weights, too, which can run code.  [default: no]")
def serve_prm(model: str, **given: Any) -> int:
    """Serve the process reward model MODEL (a folder or a hub id).

    The class that its config.json names decides how: ...ForCausalLM as a language model, whose score is the probability
    of a token; others as models that embed, those that SGLang lacks (Qwen2ForProcessRewardModel, Qwen2ForPrmModel,
    ...ForTokenClassification) by classes that tts-tui has SGLang load. What follows -- goes to SGLang as it is.
    """
    from tts_tui.cli.serve import serve

    return serve("prm", model, given)
