"""Finds strategies, policies and reward models by what users type, built in or installed by others.

A package adds its own through the entry point groups `tts_tui.strategies` (an object that is a `Strategy`),
`tts_tui.policies` and `tts_tui.reward_models` (callables that take what stands after `NAME:` in the spec). A plugin
that cannot be loaded stops nothing else: strategies are left out with a `PluginWarning`, and all of them are refused
with a `PluginError` when they are asked for by name.
"""

from __future__ import annotations

import pkgutil
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from msgspec import Struct

from tts_tui.errors import PluginError, PluginWarning, TTSError, UnknownName, UsageError
from tts_tui.profiles.specs import parse_prm
from tts_tui.protocols import Policy, RewardModel
from tts_tui.search.strategy import Strategy


@cache
def strategies() -> dict[str, Strategy]:
    """All strategies by name: every module of `tts_tui.strategies` that has a `strategy`, and entry points.

    Warns:
        PluginWarning: A strategy of another package cannot be loaded, or has the name of another one; it is left out.
    """
    package = import_module("tts_tui.strategies")
    found: dict[str, Strategy] = {}
    for module in pkgutil.iter_modules(package.__path__, "tts_tui.strategies."):
        built_in = getattr(import_module(module.name), "strategy", None)
        if built_in is not None:
            found[built_in.name] = built_in
    for name, entry in _entry_points("strategies").items():
        if name in found:
            warnings.warn(f"{_said('strategies', entry, name)} has a name that is taken: left out", PluginWarning, 2)
            continue
        try:
            found[name] = _loaded("strategies", entry, name)
        except PluginError as error:
            warnings.warn(f"{error}; it is left out", PluginWarning, stacklevel=2)
    return found


def register(strategy: Strategy) -> None:
    """Makes `strategy` known in this process; a package does it for good by an entry point.

    Raises:
        UsageError: Another strategy has that name.
    """
    if strategies().setdefault(strategy.name, strategy) is not strategy:
        raise UsageError(f"there is a strategy called {strategy.name!r} already: choose another name")


def strategy(name: str) -> Strategy:
    """The strategy called `name`.

    Raises:
        UnknownName: There is none; the message offers the nearest.
        PluginError: It is one of another package, and cannot be loaded.
    """
    found = strategies().get(name)
    if found is not None:
        return found
    if (entry := _entry_points("strategies").get(name)) is not None:
        made: Strategy = _loaded("strategies", entry, name)
        return made
    raise UnknownName("strategy", name, strategies())


POLICIES = ("embedded", "hf:PATH", "hf:ORG/NAME", "sglang:URL", "openai:URL#MODEL")


def policy(spec: str, **server: Any) -> Policy:
    """The policy of a spec: one of `POLICIES`, or `NAME:...` of an entry point.

    Nothing is loaded and nothing is connected before its `start`.

    Args:
        spec: What the user typed.
        server: What only a policy on a server takes: `api_key`, `concurrency`, `max_rps`.

    Raises:
        UnknownName: No such kind of policy.
        PluginError: It is one of another package, and cannot be loaded.
        UsageError: The address is none, or `server` is given for a policy that is on none.
    """
    kind, _, rest = spec.partition(":")
    if kind == "sglang":
        from tts_tui.backends.sglang.policy import SGLangPolicy

        return SGLangPolicy(rest, **server)
    if kind == "openai":
        from tts_tui.backends.openai.policy import OpenAIPolicy

        return OpenAIPolicy(rest, **server)
    if server:
        names = " and ".join("--" + name.replace("_", "-") for name in server)
        raise UsageError(f"{names} can be given for a policy on a server only, such as --policy sglang:URL")
    if spec == "embedded":
        from tts_tui.backends.local.embedded import EmbeddedPolicy

        return EmbeddedPolicy()
    if kind == "hf":
        from tts_tui.backends.local.policy import LocalPolicy

        return LocalPolicy(_needs_rest(spec, rest))
    made: Policy = _plugin("policies", spec, list(POLICIES))
    return made


REWARD_MODELS = ("embedded", "none", "adapter:FILE", "hf:PATH[@NAME]", "hf:ORG/NAME[@NAME]", "sglang:URL[@NAME]")


def reward_model(spec: str, policy: Policy | None = None, **options: Any) -> RewardModel | None:
    """The reward model of a spec: one of `REWARD_MODELS`, or `NAME:...` of an entry point.

    Args:
        spec: What the user typed.
        policy: The policy of the same run, if any; a reward model made from the same weights shares them instead of
            loading them twice.
        options: What only one that is loaded takes, `allow_pickle`, or one on a server, `tokenizer` and `api_key`.

    Raises:
        UnknownName: No such kind of reward model, or no such profile.
        PluginError: It is one of another package, and cannot be loaded.
        UsageError: The spec cannot be read, or an option is given for a reward model that does not take it.
    """
    kind, _, rest = spec.partition(":")
    _check_options(kind, options)
    if spec == "none":
        return None
    if spec == "embedded":
        from tts_tui.backends.adapter.reward_model import AdapterPRM

        return AdapterPRM(policy)
    if kind == "adapter":
        from tts_tui.backends.adapter.reward_model import AdapterPRM

        return AdapterPRM(policy, path=_needs_rest(spec, rest, "adapter:FILE"))
    if kind in _PRM_OPTIONS:
        parsed = parse_prm(spec)
    if kind == "hf":
        from tts_tui.backends.prm.local import LocalPRM

        return LocalPRM(parsed.source, name=parsed.name, layout=parsed.layout, **options)
    if kind == "sglang":
        from tts_tui.backends.sglang.reward_model import SGLangPRM

        return SGLangPRM(parsed.source, name=parsed.name, layout=parsed.layout, **options)
    made: RewardModel = _plugin("reward_models", spec, list(REWARD_MODELS))
    return made


_PRM_OPTIONS = {"hf": {"allow_pickle": "--allow-pickle"}, "sglang": {"tokenizer": "--prm-tokenizer", "api_key": ""}}
"""Options of reward models by their kind, and what they are called on the command line."""


def _check_options(kind: str, options: Mapping[str, Any]) -> None:
    for of, names in _PRM_OPTIONS.items():
        for name, flag in names.items():
            if name in options and kind != of:
                where = (
                    "that is loaded, such as --prm hf:PATH" if of == "hf" else "on a server, such as --prm sglang:URL"
                )
                raise UsageError(f"{flag or name} can be given for a reward model {where} only")


def _needs_rest(spec: str, rest: str, example: str = "hf:PATH or hf:ORG/NAME") -> str:
    if not rest:
        raise UsageError(f"{spec!r} names no model: write {example}")
    return rest


# -- plugins -----------------------------------------------------------------------------------------------------------

_GROUPS = {"strategies": "strategy", "policies": "policy", "reward_models": "reward model"}
"""Entry point groups, without the `tts_tui.` before them, and what they hold."""
_STRATEGY = ("name", "summary", "needs_scores", "uses_width", "run")


class Plugin(Struct, frozen=True):
    """A strategy, policy or reward model of another package.

    Attributes:
        said: What it is, for people: "the strategy mine of the package ours".
        error: Why it cannot be loaded; None if it can.
    """

    said: str
    error: PluginError | None = None


def plugins() -> Iterator[Plugin]:
    """Load every installed plugin to see whether it can be used."""
    for group in _GROUPS:
        for name, entry in _entry_points(group).items():
            said = _said(group, entry, name)
            try:
                _loaded(group, entry, name)
            except PluginError as error:
                yield Plugin(said, error)
            else:
                yield Plugin(said)


def _said(group: str, entry: Any, name: str) -> str:
    package = getattr(entry, "dist", None)
    return f"the {_GROUPS[group]} {name}" + (f" of the package {package.name}" if package is not None else "")


def _loaded(group: str, entry: Any, name: str) -> Any:
    said = _said(group, entry, name)
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:  # it is the code of others: any fault of it is one that it may have
        raise PluginError(f"{said} cannot be loaded ({_cause(error)}): repair or uninstall it") from error
    if group != "strategies" and not callable(found):
        raise PluginError(f"{said} cannot be used, for it cannot be called: repair or uninstall it")
    if group == "strategies" and (lacking := [part for part in _STRATEGY if not hasattr(found, part)]):
        raise PluginError(f"{said} cannot be used, for it has no {' and no '.join(lacking)}: repair or uninstall it")
    return found


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _plugin(group: str, spec: str, built_in: list[str]) -> Any:
    kind, _, rest = spec.partition(":")
    known = _entry_points(group)
    if kind not in known:
        raise UnknownName(_GROUPS[group], spec, [*built_in, *known])
    make = _loaded(group, known[kind], kind)
    try:
        return make(rest)
    except TTSError:
        raise
    except Exception as error:
        raise PluginError(f"{_said(group, known[kind], kind)} cannot be made ({_cause(error)})") from error


def _entry_points(group: str) -> dict[str, Any]:
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    return {entry.name: entry for entry in entry_points(group=f"tts_tui.{group}")}
