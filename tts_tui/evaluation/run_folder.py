"""The folder of an evaluation: its problems, models and plans, and the outcomes so far.

`run.json` describes the run, `problems.jsonl` holds the problems in order, `recordings/PLAN/ID.jsonl` one search each,
and `outcomes.jsonl` the outcomes. If the process is killed, everything written completely is kept.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from tts_tui.errors import RecordCorrupt, RecordVersion, UsageError
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.files import open_regular, read_regular
from tts_tui.plan import Plan
from tts_tui.preflight import same_prm
from tts_tui.protocols import ModelInfo
from tts_tui.tree.recording import whole_lines

try:
    import fcntl
except ImportError:  # not available on every system; without it, two processes are not kept apart
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
"""Version of the folder's format; readers refuse newer ones."""
T = TypeVar("T")
_OURS = {".lock", "run.json", "problems.jsonl", "outcomes.jsonl", "recordings"}


class Source(Struct, frozen=True):
    """The source of a run's problems.

    Attributes:
        name: Name of the data set: `math500`, the stem of a file, or `families`.
        source: File name, or the families joined by commas.
        split: Split of the families; empty for files.
        count: Number of problems so far.
        left_out: Ids of problems without an answer, which are not in the run.
        unreadable: Ids of problems whose answers can only be compared as text.
    """

    name: str
    source: str
    split: str = ""
    count: int = 0
    left_out: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


class Header(Struct, frozen=True, kw_only=True):
    """The description of a run.

    Attributes:
        format: Version of the folder's format.
        version: Version of tts-tui that started the run.
        created: Time at which the run was started.
        dataset: Source of the problems.
        policy: The policy.
        prm: The reward model; None as long as no plan needed one.
        policy_spec, prm_spec: Specs of the models as typed by the user.
        plans: Plans by name.
        calibrations: Date and source of the calibration, or of the priors, of each plan of `auto`, by the plan's name.
    """

    format: int = FORMAT
    version: str
    created: str
    dataset: Source
    policy: ModelInfo
    prm: ModelInfo | None
    policy_spec: str
    prm_spec: str
    plans: dict[str, Plan]
    calibrations: dict[str, str] = {}


def file_name(name: str) -> str:
    """Return a file name for a plan's name or a problem's id; different ones never share a file name."""
    plain = re.sub(r"[:,=]", "-", name)
    safe = re.sub(r"[^\w.-]+", "-", plain, flags=re.ASCII).lstrip(".")[:120]
    if safe and safe == plain:
        return safe
    return f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def read_header(folder: Path) -> Header:
    """Read the description of a run.

    Raises:
        UsageError: The folder is not that of a run, or cannot be read.
        RecordVersion: The run was written by a newer version.
        RecordCorrupt: The file is damaged.
    """
    path = folder / "run.json"
    try:
        data = read_regular(path)
    except FileNotFoundError:
        raise UsageError(f"{folder} is no run of `tts-tui eval`: there is no run.json in it") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        said = msgspec.json.decode(data, type=dict).get("format")
        if isinstance(said, int) and said > FORMAT:
            raise RecordVersion(f"{folder} was written in format {said}; this version reads up to {FORMAT}: update it")
        return msgspec.json.decode(data, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordCorrupt(f"{path} is damaged: {error}") from error


def read_items(folder: Path) -> list[Item]:
    """Read the problems of a run, in order.

    Raises:
        UsageError: The problems cannot be read.
        RecordCorrupt: A line is damaged.
    """
    return _lines(folder / "problems.jsonl", Item)


def read_outcomes(folder: Path) -> list[Outcome]:
    """Read the newest outcome of each plan on each problem, in the order in which they were added.

    A truncated last line is ignored; if the file is missing, there are no outcomes.

    Raises:
        UsageError: The outcomes cannot be read.
        RecordCorrupt: A line before the last is damaged.
    """
    path = folder / "outcomes.jsonl"
    found: dict[tuple[str, str], Outcome] = {}
    for outcome in _lines(path, Outcome) if path.exists() else ():
        found.pop((outcome.plan, outcome.problem), None)
        found[outcome.plan, outcome.problem] = outcome
    return list(found.values())


def _lines(path: Path, kind: type[T]) -> list[T]:
    decoder = msgspec.json.Decoder(kind)
    found: list[T] = []
    try:
        with open_regular(path) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    found.append(decoder.decode(line))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise RecordCorrupt(f"{path} is damaged in line {number}: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    return found


def _brief(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


class RunFolder:
    """A run's folder, locked by this process while it is open.

    Args:
        path: Path of the folder; created if necessary.
        option: Command-line option that selects another folder, for error messages.

    Attributes:
        header: Description of the run; None in a new folder.
        items: Problems so far.
        outcomes: The newest outcome by (plan, id).

    Raises:
        UsageError: The folder cannot be written, holds something else, or is being written by another process.
        RecordError: Its files are damaged, or of a newer version.
    """

    def __init__(self, path: Path, option: str = "--out") -> None:
        self.path = path
        self._option = option
        self.header: Header | None = None
        self.items: list[Item] = []
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self._file: BinaryIO | None = None
        if path.is_file():
            raise UsageError(f"{path} is a file: name a folder with {option}")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / ".lock", "ab")  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"cannot write the folder {path}: {error.strerror or error}") from error
        try:
            self._hold()
            self._read()
        except BaseException:
            self._lock.close()
            raise

    def _hold(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"{self.path} is being written by another process: wait for it, or choose another folder with "
                f"{self._option}"
            ) from None

    def _read(self) -> None:
        if not (self.path / "run.json").exists():
            others = sorted(entry.name for entry in self.path.iterdir() if entry.name not in _OURS)
            if others := [name for name in others if not name.endswith(".tmp")]:
                raise UsageError(
                    f"{self.path} holds something else ({others[0]}): choose an empty folder, or a new one, with "
                    f"{self._option}"
                )
            return
        self.header = read_header(self.path)
        if (self.path / "problems.jsonl").exists():
            self.items = read_items(self.path)
        self.outcomes = {(one.plan, one.problem): one for one in read_outcomes(self.path)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder, and release the lock for other processes."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.close()

    def recording(self, plan: str, problem: str) -> Path:
        """Return the path of a search's recording, and create its folder."""
        folder = self.path / "recordings" / file_name(plan)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{file_name(problem)}.jsonl"

    def compare(self, items: Sequence[Item], plans: Mapping[str, Plan]) -> None:
        """Check that problems and plans agree with those of the run; additional ones are allowed.

        Raises:
            UsageError: They differ; the message names the difference.
        """
        if self.header is None:
            return
        for place, (had, given) in enumerate(zip(self.items, items, strict=False), 1):
            if had != given:
                raise self._differs(f"problem {place} is {had.id} there and {given.id} now", had, given)
        for name, plan in plans.items():
            before = self.header.plans.get(name)
            if before is not None and before.replace(why=plan.why) != plan:
                raise self._differs(f"the plan {name} has other settings", before, plan)

    def compare_models(self, policy: ModelInfo, prm: ModelInfo | None, *, scores: bool = True) -> None:
        """Check that the models are those of the run.

        Args:
            policy: The policy.
            prm: The reward model, if one is needed.
            scores: Whether scores are available, or no plan would use them; without scores, the same plans would vote
                differently.

        Raises:
            UsageError: A model differs; the message names it.
        """
        if self.header is None:
            return
        had = self.header
        if (had.policy.name, had.policy.family) != (policy.name, policy.family):
            raise self._differs(f"its policy is {had.policy.name}, not {policy.name}")
        if had.prm is not None and not scores:
            raise self._differs(f"its reward model is {had.prm.name}, and now there is none")
        if had.prm is not None and prm is not None and not same_prm(had.prm, prm):
            raise self._differs(f"its reward model is {had.prm.name} ({had.prm.family}), not {prm.name} ({prm.family})")

    def compare_calibration(self, plan: str, now: str) -> None:
        """Check that a calibration is the one by which a plan of `auto` has chosen so far.

        Raises:
            UsageError: The calibrations differ; the message names both.
        """
        had = self.header.calibrations.get(plan, now) if self.header is not None else now
        if had != now:
            raise self._differs(f"its plan {plan} chose by {_brief(had)}, not by {_brief(now)}")

    def _differs(self, what: str, had: Struct | None = None, given: Struct | None = None) -> UsageError:
        if had is not None and given is not None:
            before, now = asdict(had), asdict(given)
            fields = [name for name in before if before[name] != now[name] and name != "why"]
            if "id" not in fields:
                what += f" ({', '.join(fields)})"
        return UsageError(f"{self.path} is another run: {what}; choose another folder with {self._option}")

    def write(self, header: Header, items: Sequence[Item]) -> None:
        """Write the description of the run; existing plans and problems are kept."""
        had = self.header
        longer = items if len(items) > len(self.items) else self.items
        if had is not None:
            prm = had.prm or header.prm
            header = replace(
                had,
                prm=prm,
                plans=had.plans | header.plans,
                dataset=header.dataset,
                calibrations=had.calibrations | header.calibrations,
            )
        header = replace(header, dataset=replace(header.dataset, count=len(longer)))
        self._replace("run.json", [msgspec.json.format(msgspec.json.encode(header), indent=1)])
        if longer is items or not (self.path / "problems.jsonl").exists():
            self._replace("problems.jsonl", map(msgspec.json.encode, longer))
        self.header, self.items = header, list(longer)

    def _replace(self, name: str, lines: Iterable[bytes]) -> None:
        scratch = self.path / f"{name}.tmp"
        try:
            with open(scratch, "wb") as file:
                file.writelines(line + b"\n" for line in lines)
            os.replace(scratch, self.path / name)
        except OSError as error:
            raise UsageError(f"cannot write {self.path / name}: {error.strerror or error}") from error

    def add(self, outcome: Outcome) -> None:
        """Append an outcome; it replaces an older one of the same plan and problem.

        Raises:
            UsageError: The outcome cannot be written.
        """
        try:
            if self._file is None:
                self._file = self._appending()
            self._file.write(msgspec.json.encode(outcome) + b"\n")
            self._file.flush()
        except OSError as error:
            raise UsageError(f"cannot write {self.path / 'outcomes.jsonl'}: {error.strerror or error}") from error
        self.outcomes[outcome.plan, outcome.problem] = outcome

    def _appending(self) -> BinaryIO:
        path = self.path / "outcomes.jsonl"
        path.touch()
        file = open(path, "r+b")  # noqa: SIM115
        file.truncate(whole_lines(file))
        file.seek(0, os.SEEK_END)
        return file
