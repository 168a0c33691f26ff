"""Parser for specs of process reward models: `hf:PATH@NAME:LAYOUT` and `sglang:URL@NAME:LAYOUT`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

from msgspec import Struct

from tts_tui import profiles
from tts_tui.errors import UnknownName, UsageError

KINDS = ("hf", "sglang")
_NAMING = "name it behind an @, as in hf:PATH@qwen or sglang:URL@math-shepherd:paper; `tts-tui profiles` lists all PRMs"
_HOST = re.compile(r"localhost|[\d.]+|.*\.[a-z]{2,}|.*:\d+", re.IGNORECASE)


class PRMSpec(Struct, frozen=True):
    """A parsed spec of a process reward model.

    Attributes:
        kind: "hf" for a model in this process, "sglang" for one on a server.
        source: The folder or hub id, or the server's address.
        name: The profile or adapter that the user named; None to detect it from the checkpoint.
        layout: The layout that the user named; None for the official one.
    """

    kind: Literal["hf", "sglang"]
    source: str
    name: str | None = None
    layout: str | None = None


def parse_prm(spec: str) -> PRMSpec:
    """Parse a spec: `hf:PATH_OR_ID[@NAME[:LAYOUT]]` or `sglang:URL[@NAME[:LAYOUT]]`.

    An @ that belongs to the path or the address is kept there.

    Raises:
        UsageError: The spec is of another kind, or names no model, an unknown PRM, or an unknown layout of it.
    """
    kind, _, rest = spec.partition(":")
    if kind not in KINDS:
        raise UsageError(f"{spec!r} is no PRM of a checkpoint or a server: write hf:PATH, hf:ORG/NAME or sglang:URL")
    source, at, suffix = rest.rpartition("@")
    if not at or _belongs(kind, rest, source, suffix):
        source, suffix = rest, ""
    if not source:
        example = "hf:PATH or hf:ORG/NAME" if kind == "hf" else "sglang:URL"
        raise UsageError(f"{spec!r} names no model: write {example}")
    name, colon, layout = suffix.partition(":")
    if not suffix and source.rpartition(":")[2] in profiles.LAYOUTS and not _exists(source):
        raise UsageError(f"a layout stands behind the name of a PRM, as in hf:PATH@qwen:{source.rpartition(':')[2]}")
    if source != rest:
        _check(name, layout if colon else None)
    return PRMSpec("hf" if kind == "hf" else "sglang", source, name.lower() or None, layout.lower() or None)


def architecture(folder: Path) -> str:
    """Return the class named in the config.json in `folder`, or "" if there is none; loads no model library."""
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))["architectures"][0]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


def unknown_checkpoint(model: str, architecture: str = "") -> UsageError:
    """Return the error to raise if nothing identifies the PRM of a checkpoint.

    Args:
        model: Hub id or folder.
        architecture: The class named in its config.json, if known.
    """
    of_class = f" (class {architecture})" if architecture else ""
    adapters = ", ".join(profiles.adapters())
    return UsageError(f"it is not known which PRM {model}{of_class} is: {_NAMING}; adapters are {adapters}")


def _belongs(kind: str, whole: str, before: str, suffix: str) -> bool:
    """Return whether the text after the last @ is part of the path or the address rather than the name of a PRM."""
    if "/" in suffix or "\\" in suffix:
        return True
    if kind == "sglang":
        return _HOST.fullmatch(suffix) is not None
    if _exists(whole):
        return not (_is_known(suffix) and _exists(before))
    return False


def _is_known(suffix: str) -> bool:
    return suffix.partition(":")[0].lower() in {*profiles.prms(), *profiles.adapters()}


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, no home, a null character
        return False


def _check(name: str, layout: str | None) -> None:
    if not name:
        raise UsageError(f"no PRM is named behind the @: {_NAMING}")
    try:
        known = profiles.layouts(profiles.resolve(name))
    except UnknownName as error:
        if name in profiles.LAYOUTS:
            raise UsageError(f"{name} is a layout: it stands behind a name, as in hf:PATH@qwen:{name}") from None
        raise UsageError(f"{error}; {_NAMING}") from None
    if layout == "":
        raise UsageError(f"no layout is named behind the colon: {name} has {', '.join(known)}")
    if layout is not None and layout.lower() not in known:
        raise UnknownName(f"layout of {name}", layout, known)
