"""What was measured of a policy under a PRM, so that plans can be chosen for them: one readable, versioned file.

`tts-tui calibrate` writes it, `solve` finds it by the names of the models. Without one there are priors
(`tts_tui.controller.priors`), which have the same form and say so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from importlib.resources import files
from operator import mul
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from tts_tui.controller.difficulty import AnswerLikelihood, DifficultyModel
from tts_tui.controller.prompt_features import NAMES, features
from tts_tui.errors import CalibrationError, UsageError
from tts_tui.files import read_regular
from tts_tui.plan import Score, Vote
from tts_tui.protocols import ModelInfo

FORMAT = 1
"""Version of the file; another one is refused with a sentence."""

_NUMBERS = re.compile(rb"\[[\s\d.,eE+-]*\]")

NONE = "none"
"""Name of the PRM where there is none."""


NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
StartFeatures = tuple[float, float, float, float, float]
ContinueFeatures = tuple[float, float, float, float, float, float]


class Curve(Struct, frozen=True, kw_only=True):
    """How often plans of a strategy end right, and what they cost; weights are those of `tts_tui.controller.controller.chance`.

    Attributes:
        strategy: Its name.
        alone: From nothing, by (1, log-odds of pass@1, log2 n, their product, log-odds of the reach).
        win: After some samples whose vote is wrong, by (1, log-odds of the expected pass@1, log-odds of that vote being
            right, log2 of the candidates that are added, log2 of 1 + those that are there, log-odds of the reach): how
            often the vote is right afterwards.
        lose: The same where the vote is right already: how often it is wrong afterwards.
        cost: Of a candidate, in samples of the same problem.
        sizes: The n that were measured; empty where these are priors.
        problems: How many were; 0 where these are priors.
        used: Whether it is chosen from. Of two strategies that are much alike, the one whose figures are too good by
            chance is chosen too often: what brings nothing on problems that were held out is left out.
    """

    strategy: str
    alone: StartFeatures
    win: ContinueFeatures
    lose: ContinueFeatures
    cost: Positive = 1.0
    sizes: tuple[Annotated[int, Meta(ge=1)], ...] = ()
    problems: int = 0
    used: bool = True


class Point(Struct, frozen=True):
    """What choosing at one price came to on problems that the choice was not fitted on.

    Attributes:
        price: Accuracy that as many tokens as a sample has on average must be expected to bring.
        tokens: Mean cost of a problem, in tokens of the policy.
        accuracy: Share of right answers.
    """

    price: Positive
    tokens: NotNegative
    accuracy: Annotated[float, Meta(ge=0, le=1)]


class HiddenStateProjection(Struct, frozen=True):
    """What to make of a policy's hidden states: the directions in which those of problems differ most.

    Attributes:
        centre: Mean of the states (`Reading.state`) of the problems that were sampled, `[width]`.
        axes: The directions, `[directions][width]`.
    """

    centre: tuple[float, ...]
    axes: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if any(len(axis) != len(self.centre) for axis in self.axes):
            raise ValueError("a direction of hidden states has as many numbers as their mean")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features that it gives."""
        return tuple(f"state {number}" for number in range(1, len(self.axes) + 1))

    def values(self, state: Sequence[float]) -> list[float]:
        """A state as features: how far it lies from the centre in every direction, and 0 where there is no state.

        Raises:
            CalibrationError: It is of another width.
        """
        if not state:
            return [0.0] * len(self.axes)
        if len(state) != len(self.centre):
            raise CalibrationError(
                f"the calibration was made with hidden states of {len(self.centre)} numbers, and this policy has "
                f"{len(state)}: it is another model under the same name; make one with tts-tui calibrate"
            )
        gaps = [value - mean for value, mean in zip(state, self.centre, strict=True)]
        return [sum(map(mul, axis, gaps)) for axis in self.axes]


class Calibration(Struct, frozen=True, kw_only=True):
    """All of it.

    Attributes:
        format: `FORMAT`.
        policy: Name of the policy, as its `ModelInfo` has it.
        prm: Name of the PRM, or "none".
        source: The command that made it.
        created: When, in ISO 8601; empty for priors.
        version: Of tts-tui.
        problems: How many were sampled; 0 for priors.
        samples: How many solutions each had.
        temperature: At which they were sampled.
        score: How step scores become one number; chosen on the same problems.
        vote: How solutions become one answer; likewise.
        probe: Samples before the first choice.
        sample_tokens: Mean cost of one sample, in tokens of the policy: those of the PRM are weighed by its size.
        overhead: What a problem costs once, however much of it is sampled: the PRM reads its question, and a first
            text that no other sample shares. Likewise.
        reader: What hidden states tell of a prompt; None where the policy had none to show, or they told nothing.
        outlook: From a prompt to the belief before any sample.
        reach: From a prompt to how often a large plan is right: two problems with the same pass@1 are not equally far
            from being solved by search. None where it is not known.
        evidence: How samples change a belief.
        curves: Of every strategy that may be chosen.
        price: Accuracy that the tokens of a mean sample must bring if the user wishes for nothing else.
        frontier: What choosing came to, from the dearest price to the lowest.
        validation: Figures on problems that the parts were not fitted on.
    """

    format: int = FORMAT
    policy: str
    prm: str
    source: str
    created: str = ""
    version: str = ""
    problems: int = 0
    samples: int = 0
    temperature: float = 0.7
    score: Score = "last"
    vote: Vote = "prm-max"
    probe: Annotated[int, Meta(ge=1)] = 4
    sample_tokens: NotNegative = 0.0
    overhead: NotNegative = 0.0
    projection: HiddenStateProjection | None = None
    difficulty: DifficultyModel
    solvability: DifficultyModel | None = None
    likelihood: AnswerLikelihood
    curves: tuple[Curve, ...]
    price: Positive = 0.002
    frontier: tuple[Point, ...] = ()
    validation: dict[str, Any] = {}

    @property
    def is_measured(self) -> bool:
        """Whether any of it was measured, and it is not priors alone."""
        return self.problems > 0

    @property
    def basis(self) -> str:
        """What it rests on, in words."""
        if not self.is_measured:
            return "priors from the paper, as nothing was calibrated for these models (tts-tui calibrate does that)"
        return f"calibrated on {self.problems} problems with {self.samples} samples each"

    def values(self, problem: str, state: Sequence[float] = ()) -> list[float]:
        """Features of a problem, as outlook and reach take them; none where they take none.

        Args:
            problem: Its text.
            state: The policy's hidden state on it (`Reading.state`), where it has one to show.

        Raises:
            CalibrationError: The state is another model's.
        """
        return self.joined(features(problem), state) if self.difficulty.names else []

    def joined(self, text: Sequence[float], state: Sequence[float]) -> list[float]:
        """Features of a problem from those of its text and from the policy's state."""
        return [*text, *(self.projection.values(state) if self.projection else ())]

    def curve(self, strategy: str) -> Curve | None:
        """The curve of a strategy, if there is one."""
        return next((curve for curve in self.curves if curve.strategy == strategy), None)


# -- files -------------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where the user's own calibrations lie."""
    home = os.environ.get("TTS_TUI_HOME")
    if home:
        return Path(home).expanduser() / "calibrations"
    from platformdirs import user_data_path

    return user_data_path("tts-tui") / "calibrations"


def file_name(policy: str, prm: str) -> str:
    """Name of the file for two models."""
    return "--".join(re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower() for name in (policy, prm)) + ".json"


def names_of(policy: ModelInfo, prm: ModelInfo | None) -> tuple[str, str]:
    """What two models are called in a calibration."""
    return policy.name, prm.name if prm is not None else NONE


def find(policy: ModelInfo, prm: ModelInfo | None) -> Calibration | None:
    """The calibration of two models: the user's own, else the shipped one; None if there is neither.

    Raises:
        CalibrationError: The user's own cannot be used; the message says why.
    """
    names = names_of(policy, prm)
    own = folder() / file_name(*names)
    if own.is_file():
        found = load(own)
        check_models(found, policy, prm, own)
        return found
    shipped = files("tts_tui") / "data" / "calibrations" / file_name(*names)
    if not shipped.is_file():
        return None
    return decode(shipped.read_bytes(), "the shipped calibration")


def load(path: Path) -> Calibration:
    """Reads a file.

    Raises:
        CalibrationError: It cannot be read, is no calibration, or has another format.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise CalibrationError(
            f"cannot read the calibration {path}: {error.strerror or error}; name a file that tts-tui calibrate wrote "
            "with --calibration, or leave it out"
        ) from error
    except UsageError as error:
        raise CalibrationError(f"cannot read the calibration: {error}") from None
    return decode(data, f"the calibration {path}")


def decode(data: bytes, what: str) -> Calibration:
    """The calibration in `data`.

    Raises:
        CalibrationError: It is none, or has another format.
    """
    try:
        format = msgspec.json.decode(data, type=_Head).format
        if format != FORMAT:
            age = "an older" if format < FORMAT else "a newer"
            raise CalibrationError(
                f"{what} has {age} format ({format}, this tts-tui reads {FORMAT}): make it anew with tts-tui "
                "calibrate, or remove it"
            )
        found = msgspec.json.decode(data, type=Calibration)
        count = len(NAMES) + (len(found.projection.axes) if found.projection else 0)
        if any(one is not None and len(one.names) not in (0, count) for one in (found.difficulty, found.solvability)):
            raise msgspec.ValidationError(f"outlook and reach take the {count} features of prompts, or none")
        return found
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CalibrationError(
            f"{what} is damaged ({error}): make it anew with tts-tui calibrate, or remove it"
        ) from error


class _Head(Struct):
    format: int


def check_models(found: Calibration, policy: ModelInfo, prm: ModelInfo | None, path: Path | None = None) -> None:
    """Refuses a calibration of other models.

    Raises:
        CalibrationError: It is of others.
    """
    if (found.policy, found.prm) != (wanted := names_of(policy, prm)):
        where = f" {path}" if path else ""
        raise CalibrationError(
            f"the calibration{where} is of {found.policy} under {found.prm}, and not of {wanted[0]} under {wanted[1]}: "
            "give another one, or make one with tts-tui calibrate"
        )


def save(calibration: Calibration, path: Path) -> None:
    """Writes a file, whole or not at all.

    Raises:
        CalibrationError: It cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(calibration), indent=1)
    text = _NUMBERS.sub(lambda found: b" ".join(found[0].split()), text)  # a line for each row of numbers
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_bytes(text + b"\n")
        os.replace(scratch, path)
    except OSError as error:
        raise CalibrationError(f"cannot write the calibration {path}: {error.strerror or error}") from error
