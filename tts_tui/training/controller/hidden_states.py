"""Hidden states of a policy on the prompts of a data set, computed once and stored in a file next to a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from tts_tui.errors import ContextExceeded, RecordCorrupt, UsageError
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.files import open_regular
from tts_tui.protocols import ExposesHiddenStates, Policy, PromptEncoding
from tts_tui.tree.recording import whole_lines

_AT_ONCE = 8
_DIGITS = 6


class KeptState(Struct, frozen=True):
    """The stored hidden state of one prompt (`PromptEncoding.hidden_state`), with the name of its policy."""

    problem: str
    state: tuple[float, ...]
    policy: str = ""


def kept(path: Path, policy: str) -> dict[str, tuple[float, ...]]:
    """Return a policy's stored hidden states by problem; a partial last line, left by an interrupted write, is ignored.

    Args:
        path: The file.
        policy: Name of the policy; states of other policies are skipped.

    Raises:
        RecordCorrupt: The file is damaged or holds something else.
        UsageError: The file cannot be read.
    """
    if not path.is_file():
        return {}
    try:
        with open_regular(path) as file:
            size = whole_lines(file)
            file.seek(0)
            lines = [msgspec.json.decode(line, type=KeptState) for line in file.read(size).splitlines()]
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordCorrupt(f"{path} is damaged ({error}): remove it, and the prompts are read again") from error
    return {line.problem: line.state for line in lines if line.policy == policy}


async def read(
    policy: Policy, items: Sequence[Item], path: Path, tell: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, tuple[float, ...]]:
    """Return the hidden states of all prompts; only those missing in the file are computed, and added to it.

    Args:
        policy: The policy, started.
        items: The problems.
        path: The file.
        tell: Called with the number of prompts done and their total.

    Returns:
        States by problem, without prompts that the policy cannot take or exposes no state of; if it exposes no states
        at all, only those in the file.

    Raises:
        BackendError: The policy failed.
        RecordCorrupt: The file is damaged or holds something else.
        UsageError: The file cannot be read or written.
    """
    found = kept(path, policy.info.name)
    left = [item for item in items if item.id not in found]
    if not left or not isinstance(policy, ExposesHiddenStates):
        return found

    async def one(item: Item) -> KeptState:
        try:
            reading = await policy.encode_prompt(await policy.prompt(item.problem))
        except ContextExceeded:
            reading = PromptEncoding()
        return KeptState(item.id, tuple(round(value, _DIGITS) for value in reading.hidden_state), policy.info.name)

    try:
        with path.open("ab+") as file:
            file.truncate(whole_lines(file))
            for at in range(0, len(left), _AT_ONCE):
                batch = await asyncio.gather(*map(one, left[at : at + _AT_ONCE]), return_exceptions=True)
                for state in batch:
                    if isinstance(state, KeptState) and state.state:
                        file.write(msgspec.json.encode(state) + b"\n")
                        found[state.problem] = state.state
                file.flush()
                for state in batch:
                    if isinstance(state, BaseException):
                        raise state
                tell(len(items) - len(left) + at + len(batch), len(items))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    return found
