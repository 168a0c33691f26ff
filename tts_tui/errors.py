"""The errors that this package raises.

::

    TTSError
    ├── UsageError              the caller's input cannot be used (exit code 2)
    │   ├── ConfigError         the settings file cannot be used
    │   ├── CalibrationError    a calibration is damaged, of another format, or of other models
    │   ├── PlanError           the settings of a plan contradict each other
    │   └── UnknownName         there is no strategy, model or profile of that name
    ├── BackendError            a model or a server failed (exit code 3)
    │   ├── BackendUnavailable  it cannot be reached, or is not installed
    │   │   ├── ModelNotFound   the caller named a model that does not exist (exit code 2)
    │   │   ├── WrongServer     the address is no server, or one of another kind (exit code 2)
    │   │   └── BackendOverloaded  it is too busy at the moment
    │   ├── BackendTimeout      it did not respond in time
    │   ├── BackendBadResponse  its response makes no sense
    │   ├── RequestRefused      it understood the request and does not support it (exit code 2)
    │   └── ContextExceeded     the path no longer fits the model's context
    ├── PluginError             an installed plugin cannot be loaded (exit code 3)
    ├── StrategyError           a strategy broke its contract (exit code 3)
    ├── SinkError               a sink of a search failed (exit code 3)
    ├── SolverClosed            the solver was closed before or during the search (exit code 3)
    ├── BudgetExhausted         tokens, FLOPs or seconds are spent (exit code 1)
    └── RecordError             a recording cannot be used (exit code 2)
        ├── RecordCorrupt       it is not a recording, or is damaged before its last line
        ├── RecordVersion       it was written by a version with another format
        └── RecordingStopped    it can no longer be written

Every message is one sentence for the user that includes how to fix the problem.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from tts_tui.protocols import StepScore


class TTSError(Exception):
    """The base class of all errors of this package.

    Attributes:
        exit_code: Exit code of the command line for this error.
    """

    exit_code: ClassVar[int] = 3


class UsageError(TTSError):
    """Raised when the caller's own input cannot be used."""

    exit_code = 2


class ConfigError(UsageError):
    """Raised when the settings file cannot be used."""


class CalibrationError(UsageError):
    """Raised when a calibration cannot be used: it is damaged, of another format, or of other models."""


class PlanError(UsageError):
    """Raised when a plan's settings contradict each other."""


class UnknownName(UsageError):
    """Raised when a name is not known; the message suggests the nearest known one.

    Args:
        kind: The kind of thing that the name stands for, such as "strategy".
        name: The unknown name.
        known: All known names.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}known are {', '.join(names)}")


class BackendError(TTSError):
    """Raised when a policy or reward model fails.

    Attributes:
        retryable: True if the same request may succeed later.
        scores: The scores of the part of a batch that succeeded, in the order of its requests, with None for each
            request that failed (`RewardModel.score`); empty if all failed.
    """

    retryable: ClassVar[bool] = True
    scores: Sequence[StepScore | None] = ()


class BackendUnavailable(BackendError):
    """Raised when a model or server cannot be reached or loaded."""


class ModelNotFound(BackendUnavailable):
    """Raised when there is no model at the path or of the name that the caller gave."""

    exit_code = 2


class WrongServer(BackendUnavailable):
    """Raised when an address is not that of the expected kind of server, or the server denies access."""

    exit_code = 2
    retryable = False


class BackendOverloaded(BackendUnavailable):
    """Raised when a server is overloaded and the request should be repeated later.

    Attributes:
        retry_after: Seconds to wait; None if the server did not specify a time.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BackendTimeout(BackendError):
    """Raised when a backend does not respond in time."""


class BackendBadResponse(BackendError):
    """Raised when a backend's response breaks its contract."""


class RequestRefused(BackendError):
    """Raised when a server refuses a request and would refuse it again.

    Attributes:
        status: HTTP status of the response.
    """

    exit_code = 2
    retryable = False

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ContextExceeded(BackendError):
    """Raised when prompt and path leave no room in the model's context."""

    retryable = False


class PluginError(TTSError):
    """Raised when a strategy, policy or reward model of another package is requested and cannot be loaded."""


class PluginWarning(UserWarning):
    """Issued when a strategy of another package cannot be loaded and is left out."""


class StrategyError(TTSError):
    """Raised when a strategy breaks its contract."""


class SinkError(TTSError):
    """Raised when a sink, a callback for the events of a search, has raised; `__cause__` is its exception."""


class SolverClosed(TTSError):
    """Raised in the caller of a search when its solver is closed, or was closed before."""


class BudgetExhausted(TTSError):
    """Raised inside a search once its budget is spent."""

    exit_code = 1


class RecordError(TTSError):
    """Raised when a recording cannot be read or continued."""

    exit_code = 2


class RecordCorrupt(RecordError):
    """Raised when a file is not a recording, or is damaged before its last line."""


class RecordVersion(RecordError):
    """Raised when a recording was written by a version of this package with another event format."""


class RecordingStopped(RecordError):
    """Raised when a recording can no longer be written, for example because the disk is full."""
