"""Profiles: known facts about models as data, in one TOML file each, every fact with its source.

A profile of a process reward model (PRM) has these keys:

- `name`; `title`; `adapter`, the kind of input and head; `general = true` in one profile of each adapter, which is used
  where nothing but the adapter is known;
- `checkpoints`, hub ids; `architectures`, class names as in config.json; `base`, the model that it was trained from;
- `context`, the maximum number of tokens of an input, absent where the checkpoint defines it; `context_note`, the
  origin of that number;
- `separator`, `read`, `normalisation`, `labels`, `dtype`, `note`: sentences for people; `source`.

`[head]`: `tokens`, ids of the good and the bad token whose probabilities are the score, and how they are `written`.
Present only where the score comes from a language model's own head.

`[layouts.NAME]`: how the input is assembled; official is the default, paper is that of arXiv 2502.06703, sal is that of
search-and-learn. `{question}` and `{step}` stand for the texts; other braces are literal. Either `same`, the name of
the layout that produces the same input, or `kind` with

- text: `bos` (always, never, or tokenizer: if the tokenizer has one), `opening`, the text before the first step;
  `joined = true`, the opening and the first step are tokenized as one text; `step`; `numbered = true`, "Step 1: "
  precedes a step that does not begin with its number; `lines` (each: the tag follows every line; spaces: line feeds
  become spaces; absent: line feeds are kept); `tag` and its `tag_ids`, absent where the tokenizer determines them;
  `between`, text after a tag if another step follows; `blank = true`, an empty line with a tag separates steps;
- chat: `system`; `tag`, `tag_ids` after each step; without a tag the steps are joined with `join`, and the score is
  read at the last token of the chat;
- turns: `first` and `step`, the user's messages; `answer`, `answer_ids`, the assistant's replies. The score is read
  before the reply.

`[measured.NAME]`, in profiles that `tts-tui profile-prm` wrote (`tts_tui.profiles.user`): figures measured on this
machine.

`[defaults]`: `score` and `vote`. `[biases]`: sentences. `[reported.NAME]`: figures. Each table has its `source`, and
may have a `note`.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from tts_tui.errors import UnknownName
from tts_tui.profiles import user

OFFICIAL = "official"
"""Name of the default layout."""
LAYOUTS = (OFFICIAL, "paper", "sal")

# -- all profiles ------------------------------------------------------------------------------------------------------


@cache
def names() -> tuple[str, ...]:
    """Return the names of all profiles."""
    found = (item.name for item in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


@cache
def profile(name: str) -> dict[str, Any]:
    """Return the profile called `name`.

    Raises:
        UnknownName: There is no such profile.
    """
    if name not in names():
        raise UnknownName("profile", name, names())
    return tomllib.loads((files(__name__) / f"{name}.toml").read_text("utf-8"))


def vote_defaults(name: str) -> dict[str, str]:
    """Return the score and vote that suit a reward model, as measured here or else as shipped; empty if unknown."""
    measured = user.defaults(name)
    if measured:
        return measured
    defaults = profile(name).get("defaults", {}) if name in names() else {}
    return {key: defaults[key] for key in ("score", "vote") if key in defaults}


def profile_of(model: object) -> str:
    """Return the name of the profile of a policy or reward model; empty if it does not declare one."""
    return str(getattr(model, "profile", ""))


def votes_for(prm: object) -> dict[str, str]:
    """Return the score and vote that suit a reward model: as measured here, else its own, else its profile's."""
    name = profile_of(prm)
    return user.defaults(name) or dict(getattr(prm, "defaults", {})) or vote_defaults(name)


def plan_defaults(policy: str) -> dict[str, int]:
    """Return the plan limits that suit a policy, by its spec; empty if nothing is known about it."""
    name = f"{policy}-policy"
    limits = profile(name).get("plan", {}) if name in names() else {}
    return {key: limits[key] for key in ("step_tokens", "total_tokens") if key in limits}


# -- profiles of PRMs --------------------------------------------------------------------------------------------------


@cache
def prms() -> tuple[str, ...]:
    """Return the names of the profiles that an adapter can load: all PRMs except the embedded one."""
    return tuple(name for name in names() if "adapter" in profile(name))


@cache
def adapters() -> tuple[str, ...]:
    """Return the names of all adapters."""
    return tuple(sorted({profile(name)["adapter"] for name in prms()}))


def adapters_of(architecture: str) -> tuple[str, ...]:
    """Return the adapters that have checkpoints of this class, as named in config.json."""
    return tuple(
        adapter
        for adapter in adapters()
        if any(architecture in profile(name)["architectures"] for name in prms() if profile(name)["adapter"] == adapter)
    )


def resolve(name: str) -> str:
    """Return the profile that `name` refers to, ignoring case: that profile itself, or an adapter's general one.

    Raises:
        UnknownName: There is neither a profile nor an adapter of this name.
    """
    wanted = name.lower()
    if wanted in prms():
        return wanted
    if wanted in adapters():
        return _general(wanted)
    raise UnknownName("PRM", name, {*prms(), *adapters()})


def layouts(name: str) -> tuple[str, ...]:
    """Return the names of the layouts of a profile, the default first.

    Raises:
        UnknownName: There is no such profile.
    """
    return tuple(profile(name).get("layouts", {}))


def layout(name: str, layout: str = OFFICIAL) -> dict[str, Any]:
    """Return a layout of a profile, with `same` resolved to the keys of the layout that it names.

    Raises:
        UnknownName: There is no such profile, or it has no such layout.
    """
    known = profile(name).get("layouts", {})
    if layout not in known:
        raise UnknownName(f"layout of {name}", layout, known)
    table: dict[str, Any] = known[layout]
    same = dict(known[table["same"]]) if "same" in table else {}
    same.pop("note", None)
    return same | {key: value for key, value in table.items() if key != "same"}


def full_name(name: str, layout: str = OFFICIAL) -> str:
    """Return the name that, with the weights, identifies scores: the profile, and the layout if it is not official."""
    return name if layout == OFFICIAL else f"{name}:{layout}"


def for_checkpoint(model: str, architecture: str = "") -> str | None:
    """Return the profile of a checkpoint, or None if it is not known; it is never guessed.

    Args:
        model: Hub id or folder. A folder is identified by its name, one in the hub's cache by the id in its path.
        architecture: The class named in its config.json, if known. It decides where the name is not known, or where
            another kind of PRM has the same name; it cannot distinguish between language models.
    """
    exact, named = _by_name(model)
    if exact is not None:
        return exact
    by_class = _by_class(architecture)
    if named is not None and (by_class is None or profile(by_class)["adapter"] == profile(named)["adapter"]):
        return named
    return None if architecture.endswith("ForCausalLM") else by_class


def choose(name: str | None, model: str, architecture: str = "") -> str | None:
    """Return the profile to use for a checkpoint: the named one, else the checkpoint's own, else None.

    The name of an adapter selects the checkpoint's own profile if that belongs to this adapter, else the general one.

    Args:
        name: Name of a profile or of an adapter, as after the @ of a spec.
        model: Hub id or folder, as for `for_checkpoint`.
        architecture: The class named in its config.json, as for `for_checkpoint`.

    Raises:
        UnknownName: `name` is neither a profile nor an adapter.
    """
    found = for_checkpoint(model, architecture)
    if name is None or (found is not None and profile(found)["adapter"] == name.lower()):
        return found
    return resolve(name)


def _general(adapter: str) -> str:
    """Return the profile that is used where nothing but the adapter is known."""
    return next(name for name in prms() if profile(name)["adapter"] == adapter and profile(name).get("general"))


def _by_name(model: str) -> tuple[str | None, str | None]:
    """Return the profile with this hub id, and the one with a hub id whose last part is that of `model`."""
    parts = [part for part in re.split(r"[/\\]", model.lower()) if part]
    cached = (part.removeprefix("models--").replace("--", "/") for part in parts if part.startswith("models--"))
    id = next(cached, "/".join(parts))
    exact = named = None
    for name in prms():
        for known in map(str.lower, profile(name)["checkpoints"]):
            exact = name if known == id else exact
            named = name if parts and known.rpartition("/")[2] == parts[-1] else named
    return exact, named


def _by_class(architecture: str) -> str | None:
    """Return the general profile of the only adapter whose checkpoints have this class."""
    found = adapters_of(architecture)
    return _general(found[0]) if len(found) == 1 else None
