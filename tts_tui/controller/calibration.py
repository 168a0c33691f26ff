"""Calibrations: measurements of a policy under a PRM, from which `auto` chooses plans, in one readable, versioned file.

`tts-tui calibrate` writes the file, and `solve` finds it by the names of the models. Without one, priors are used
(`tts_tui.controller.priors`), which have the same form and are marked as such.
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

FORMAT = 2
"""Version of the file format; files with any other version are refused with an error message."""

_NUMBERS = re.compile(rb"\[[\s\d.,eE+-]*\]")

NONE = "none"
"""Name that stands for the PRM when there is none."""


NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
StartFeatures = tuple[float, float, float, float, float]
ContinueFeatures = tuple[float, float, float, float, float, float]


class Curve(Struct, frozen=True, kw_only=True):
    """A model of how often plans of a strategy find the right answer, and of their cost.

    Weights are those of a complementary log-log regression (`tts_tui.controller.controller.cloglog`).

    Attributes:
        strategy: Name of the strategy.
        alone: Weights for a plan that starts from nothing, over (1, logit of pass@1, log2 n, their product, logit of
            the solvability).
        win: Weights for continuing after samples whose vote is wrong, over (1, logit of the expected pass@1, logit of
            that vote being right, log2 of the candidates added, log2 of 1 + the existing candidates, logit of the
            solvability). The curve gives the probability that the vote is right afterwards.
        lose: Weights over the same features for continuing after samples whose vote is right. The curve gives the
            probability that the vote is wrong afterwards.
        cost: Cost of a candidate, in samples of the same problem.
        sizes: The values of n that were measured; empty for priors.
        problems: Number of problems that were measured; 0 for priors.
        used: Whether the strategy may be chosen. Of two strategies that are much alike, the one whose figures are too
            good by chance is chosen too often, so a strategy that gains nothing on held-out problems is excluded.
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
    """A point of the frontier: cost and accuracy of choosing at one price, on held-out problems.

    Attributes:
        price: Expected gain in accuracy that is required for the tokens of an average sample.
        tokens: Mean cost of a problem, in tokens of the policy.
        accuracy: Share of right answers.
    """

    price: Positive
    tokens: NotNegative
    accuracy: Annotated[float, Meta(ge=0, le=1)]


class HiddenStateProjection(Struct, frozen=True):
    """A projection of a policy's hidden states onto the directions in which those of different problems vary most.

    Attributes:
        centre: Mean of the hidden states (`PromptEncoding.hidden_state`) of the sampled problems, `[width]`.
        axes: The directions, `[directions][width]`.
    """

    centre: tuple[float, ...]
    axes: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if any(len(axis) != len(self.centre) for axis in self.axes):
            raise ValueError("a direction of hidden states has as many numbers as their mean")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features that `values` returns."""
        return tuple(f"state {number}" for number in range(1, len(self.axes) + 1))

    def values(self, state: Sequence[float]) -> list[float]:
        """Return a hidden state as features: its offset from the centre along each direction, or zeros if it is empty.

        Raises:
            CalibrationError: The state has a different width.
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
    """A calibration: everything that `auto` knows about a policy under a PRM.

    Attributes:
        format: Version of the format, `FORMAT`.
        policy: Name of the policy, as in its `ModelInfo`.
        prm: Name of the PRM, or "none".
        source: The command that made the calibration.
        created: Time of creation in ISO 8601; empty for priors.
        version: Version of tts-tui that made it.
        problems: Number of problems sampled; 0 for priors.
        samples: Number of solutions sampled for each problem.
        temperature: Sampling temperature.
        score: How step scores are aggregated into one number; chosen on the same problems.
        vote: How solutions are aggregated into one answer; chosen on the same problems.
        probe: Number of samples drawn before the first choice.
        sample_tokens: Mean cost of one sample, in tokens of the policy; tokens of the PRM are weighted by its size.
        overhead: Cost of a problem that does not depend on how much of it is sampled: the PRM reads its question, and a
            first text that no other sample shares. In the same unit as `sample_tokens`.
        projection: Projection of hidden states to features; None if the policy exposes none, or they do not help.
        difficulty: Model of the prior over pass@1, from the features of a prompt.
        solvability: Model of how often a large plan is right, from the features of a prompt: two problems with the same
            pass@1 are not equally likely to be solved by search. None if unknown.
        likelihood: Likelihood of samples, with which the prior is updated.
        curves: Curves of all strategies that may be chosen.
        price: Expected gain in accuracy required for the tokens of an average sample, if the user sets no target.
        frontier: Cost and accuracy of choosing, from the highest price to the lowest.
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
        """True if any part was measured, False for priors."""
        return self.problems > 0

    @property
    def basis(self) -> str:
        """A phrase that describes what the calibration is based on."""
        if not self.is_measured:
            return "priors from the paper, as nothing was calibrated for these models (tts-tui calibrate does that)"
        return f"calibrated on {self.problems} problems with {self.samples} samples each"

    def values(self, problem: str, state: Sequence[float] = ()) -> list[float]:
        """Return the features of a problem that `difficulty` and `solvability` take; empty if they take none.

        Args:
            problem: Text of the problem.
            state: The policy's hidden state on it (`PromptEncoding.hidden_state`), if it exposes one.

        Raises:
            CalibrationError: The state comes from another model.
        """
        return self.joined(features(problem), state) if self.difficulty.names else []

    def joined(self, text: Sequence[float], state: Sequence[float]) -> list[float]:
        """Return the features of a problem, given those of its text and the policy's hidden state."""
        return [*text, *(self.projection.values(state) if self.projection else ())]

    def curve(self, strategy: str) -> Curve | None:
        """Return the curve of a strategy, or None if there is none."""
        return next((curve for curve in self.curves if curve.strategy == strategy), None)


# -- files -------------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Return the folder of the user's own calibrations."""
    home = os.environ.get("TTS_TUI_HOME")
    if home:
        return Path(home).expanduser() / "calibrations"
    from platformdirs import user_data_path

    return user_data_path("tts-tui") / "calibrations"


def file_name(policy: str, prm: str) -> str:
    """Return the name of the calibration file for two models."""
    return "--".join(re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-").lower() for name in (policy, prm)) + ".json"


def names_of(policy: ModelInfo, prm: ModelInfo | None) -> tuple[str, str]:
    """Return the names by which a calibration refers to two models."""
    return policy.name, prm.name if prm is not None else NONE


def find(policy: ModelInfo, prm: ModelInfo | None) -> Calibration | None:
    """Return the calibration of two models: the user's own, else the shipped one, else None.

    Raises:
        CalibrationError: The user's own file cannot be used; the message gives the reason.
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
    """Read a calibration file.

    Raises:
        CalibrationError: The file cannot be read, is not a calibration, or has another format.
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
    """Decode the calibration in `data`; `what` names it in error messages.

    Raises:
        CalibrationError: The data is not a calibration, or has another format.
    """
    try:
        format = msgspec.json.decode(data, type=_Head).format
        if format != FORMAT:
            age = "an older" if format < FORMAT else "a newer"
            raise CalibrationError(
                f"{what} has {age} format ({format}, this tts-tui reads {FORMAT}): make it again with tts-tui "
                "calibrate, or remove it"
            )
        found = msgspec.json.decode(data, type=Calibration)
        count = len(NAMES) + (len(found.projection.axes) if found.projection else 0)
        if any(one is not None and len(one.names) not in (0, count) for one in (found.difficulty, found.solvability)):
            raise msgspec.ValidationError(f"outlook and reach take the {count} features of prompts, or none")
        return found
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CalibrationError(
            f"{what} is damaged ({error}): make it again with tts-tui calibrate, or remove it"
        ) from error


class _Head(Struct):
    format: int


def check_models(found: Calibration, policy: ModelInfo, prm: ModelInfo | None, path: Path | None = None) -> None:
    """Check that a calibration was made with these models.

    Raises:
        CalibrationError: It was made with other models.
    """
    if (found.policy, found.prm) != (wanted := names_of(policy, prm)):
        where = f" {path}" if path else ""
        raise CalibrationError(
            f"the calibration{where} is of {found.policy} under {found.prm}, and not of {wanted[0]} under {wanted[1]}: "
            "give another one, or make one with tts-tui calibrate"
        )


def save(calibration: Calibration, path: Path) -> None:
    """Write a calibration file atomically.

    Raises:
        CalibrationError: The file cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(calibration), indent=1)
    text = _NUMBERS.sub(lambda found: b" ".join(found[0].split()), text)  # one line per row of numbers
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_bytes(text + b"\n")
        os.replace(scratch, path)
    except OSError as error:
        raise CalibrationError(f"cannot write the calibration {path}: {error.strerror or error}") from error
