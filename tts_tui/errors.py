"""Every error that this package raises on purpose.

::

    TTSError
    ├── UsageError              the caller asked for something that cannot be (exit code 2)
    │   ├── ConfigError         the settings file holds what cannot be used
    │   ├── CalibrationError    a calibration is damaged, of another format, or of other models
    │   ├── PlanError           a plan whose numbers contradict each other
    │   └── UnknownName         no strategy, model or profile of that name
    ├── BackendError            a model or a server failed (exit code 3)
    │   ├── BackendUnavailable  it cannot be reached, or is not installed
    │   │   ├── ModelNotFound   the caller named a model that is not there (exit code 2)
    │   │   ├── WrongServer     the caller named a server that is none, or not of that kind (exit code 2)
    │   │   └── BackendOverloaded  it has too much to do just now
    │   ├── BackendTimeout      it did not answer in time
    │   ├── BackendBadResponse  it answered something that makes no sense
    │   ├── RequestRefused      it understood the request and does not do that (exit code 2)
    │   └── ContextExceeded     the path no longer fits the model's context
    ├── PluginError             an installed plugin cannot be loaded (exit code 3)
    ├── StrategyError           a strategy broke its contract (exit code 3)
    ├── SinkError               something that listened to a search failed (exit code 3)
    ├── SolverClosed            the solver was closed before or during the search (exit code 3)
    ├── BudgetExhausted         tokens, FLOPs or seconds are spent
    └── RecordError             a recording cannot be used (exit code 2)
        ├── RecordCorrupt       it is not a recording, or its middle is damaged
        ├── RecordVersion       it was written by a newer version
        └── RecordingStopped    it can no longer be written

The message of each is one sentence for the user, and says what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from tts_tui.protocols import StepScore


class TTSError(Exception):
    """The root of all errors of this package."""

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
    """Raised when a name is not known; the message offers the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}known are {', '.join(names)}")


class BackendError(TTSError):
    """Raised when a policy or reward model fails.

    Attributes:
        scores: What of a batch was scored all the same, in the order of its requests, with None for those that were
            not (`RewardModel.score`); empty if nothing was.
    """

    retryable: ClassVar[bool] = True
    scores: Sequence[StepScore | None] = ()


class BackendUnavailable(BackendError):
    """Raised when a model or server cannot be reached or loaded."""


class ModelNotFound(BackendUnavailable):
    """Raised when there is no model where the caller said."""

    exit_code = 2


class WrongServer(BackendUnavailable):
    """Raised when what answers at an address is not the server that the caller meant, or does not let the caller in."""

    exit_code = 2
    retryable = False


class BackendOverloaded(BackendUnavailable):
    """Raised when a server asks to be asked later; `retry_after` is in seconds, None if it did not say when."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BackendTimeout(BackendError):
    """Raised when a backend does not answer in time."""


class BackendBadResponse(BackendError):
    """Raised when a backend's answer breaks its contract."""


class RequestRefused(BackendError):
    """Raised when a server refuses a request and would refuse it again; `status` is its HTTP status."""

    exit_code = 2
    retryable = False

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ContextExceeded(BackendError):
    """Raised when prompt and path leave no room in the model's context."""

    retryable = False


class PluginError(TTSError):
    """Raised when a strategy, policy or reward model of another package is asked for and cannot be loaded."""


class PluginWarning(UserWarning):
    """Issued when a strategy of another package cannot be loaded and is left out."""


class StrategyError(TTSError):
    """Raised when a strategy breaks its contract."""


class SinkError(TTSError):
    """Raised when a sink, which was given to hear the events of a search, raised; `__cause__` is its exception."""


class SolverClosed(TTSError):
    """Raised in whoever waits for a search when its solver is closed, or was closed before."""


class BudgetExhausted(TTSError):
    """Raised inside a search once its budget is spent."""

    exit_code = 1


class RecordError(TTSError):
    """Raised when a recording cannot be read or continued."""

    exit_code = 2


class RecordCorrupt(RecordError):
    """Raised when a file is not a recording, or is damaged before its last line."""


class RecordVersion(RecordError):
    """Raised when a recording was written by a newer version of this package."""


class RecordingStopped(RecordError):
    """Raised when a recording can no longer be written, for example because the disk is full."""
