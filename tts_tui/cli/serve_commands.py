"""The commands under `tts-tui serve`, which serve models with SGLang."""

from __future__ import annotations

from typing import Any

import click

from tts_tui.cli import options as with_


@click.group()
def serve() -> None:
    """Serve a model with SGLang, on a GPU or a CPU, until Ctrl-C.

    SGLang may be installed in another environment than tts-tui: name its interpreter with --python.
    """


@serve.command("policy")
@with_.served
@with_.return_hidden_states
def serve_policy(model: str, **given: Any) -> int:
    """Serve MODEL (embedded, a folder or a hub id) for --policy. Arguments after -- are passed to SGLang unchanged."""
    from tts_tui.cli.serve import serve

    return serve("policy", model, given)


@serve.command("prm")
@with_.served
@click.option("--allow-pickle", is_flag=True, help="Also serve pickled weights, which can run code.  [default: no]")
def serve_prm(model: str, **given: Any) -> int:
    """Serve the process reward model MODEL (a folder or a hub id).

    The architecture in its config.json decides how: ...ForCausalLM is served as a language model whose score is the
    probability of a token; others as embedding models. Classes that SGLang lacks (Qwen2ForProcessRewardModel,
    Qwen2ForPrmModel, ...ForTokenClassification) are provided by tts-tui. Arguments after -- are passed to SGLang
    unchanged.
    """
    from tts_tui.cli.serve import serve

    return serve("prm", model, given)
