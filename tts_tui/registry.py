"""The registry of strategies, policies and reward models, built in or from plugins, by the names that users type.

A package adds its own through the entry point groups `tts_tui.strategies` (an object that is a `Strategy`),
`tts_tui.policies` and `tts_tui.reward_models` (callables that take the text after `NAME:` in the spec). A plugin that
cannot be loaded does not affect anything else: strategies are left out with a `PluginWarning`, and any plugin that is
requested by name fails with a `PluginError`.
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
    """Return all strategies by name: every module of `tts_tui.strategies` that has a `strategy`, and entry points.

    Warns:
        PluginWarning: A strategy of another package cannot be loaded, or its name is taken; it is left out.
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
    """Register `strategy` in this process. Packages register theirs permanently with an entry point.

    Raises:
        UsageError: Another strategy has that name.
    """
    if strategies().setdefault(strategy.name, strategy) is not strategy:
        raise UsageError(f"there is a strategy called {strategy.name!r} already: choose another name")


def strategy(name: str) -> Strategy:
    """Return the strategy called `name`.

    Raises:
        UnknownName: There is no such strategy; the message suggests the nearest name.
        PluginError: The strategy is of another package, and cannot be loaded.
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
    """Return the policy of a spec: one of `POLICIES`, or `NAME:...` of an entry point.

    No model is loaded and no server is contacted before the policy's `start`.

    Args:
        spec: The spec that the user typed.
        server: Options that only policies on a server take: `api_key`, `concurrency`, `max_rps`.

    Raises:
        UnknownName: There is no such kind of policy.
        PluginError: The policy is of another package, and cannot be loaded.
        UsageError: The address is not valid, or `server` options are given for a policy that is not on a server.
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
    """Return the reward model of a spec: one of `REWARD_MODELS`, or `NAME:...` of an entry point.

    Args:
        spec: The spec that the user typed.
        policy: The policy of the same run, if any; a reward model made from the same weights shares them instead of
            loading them twice.
        options: Options of some kinds only: `allow_pickle` for local models (`hf:`), and `tokenizer` and `api_key` for
            models on a server (`sglang:`).

    Returns:
        The reward model, or None for the spec "none".

    Raises:
        UnknownName: There is no such kind of reward model, or no such profile.
        PluginError: The reward model is of another package, and cannot be loaded.
        UsageError: The spec is not valid, or an option is given for a reward model that does not take it.
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
"""Options of reward models by kind, each with its name on the command line (empty if it has none)."""


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
"""Entry point groups, without the prefix `tts_tui.`, and the kind of plugin in each."""
_STRATEGY = ("name", "summary", "needs_scores", "uses_width", "run")


class Plugin(Struct, frozen=True):
    """A strategy, policy or reward model of another package.

    Attributes:
        said: Description for people, such as "the strategy mine of the package ours".
        error: The error that loading it raised; None if it can be loaded.
    """

    said: str
    error: PluginError | None = None


def plugins() -> Iterator[Plugin]:
    """Load every installed plugin, and yield each with the error if it cannot be used."""
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
    except (Exception, SystemExit) as error:  # third-party code may raise anything
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
    from importlib.metadata import entry_points  # slow to import, and rarely needed

    return {entry.name: entry for entry in entry_points(group=f"tts_tui.{group}")}
