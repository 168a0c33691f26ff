"""Runs of `tts-tui eval` as loaded for reports, finished or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tts_tui.errors import UsageError
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.run_folder import Header, read_header, read_items, read_outcomes
from tts_tui.protocols import ModelInfo

SAMPLED = ("majority", "best-of-n")
"""Strategies whose solutions are independent samples of the policy, unless it samples greedily."""


class LoadedRun:
    """A run in its current state, finished or not.

    Args:
        folder: Folder of the run.
        name: Name of the run in reports.
        header: Description of the run.
        items: Problems of the run, in order.
        outcomes: Outcomes so far.

    Attributes:
        plans: Plans by name.
        problems: Problems by id, in order.
        outcomes: Outcomes by problem, for each plan that has any.
    """

    def __init__(
        self, folder: Path, name: str, header: Header, items: Sequence[Item], outcomes: Sequence[Outcome]
    ) -> None:
        self.folder, self.name, self.header = folder, name, header
        self.plans = header.plans
        self.problems = {item.id: item for item in items}
        self.outcomes: dict[str, dict[str, Outcome]] = {}
        for plan in self.plans:
            known = {one.problem: one for one in outcomes if one.plan == plan and one.problem in self.problems}
            if known:
                self.outcomes[plan] = known

    @property
    def models(self) -> tuple[str, str]:
        """Names of the policy and the PRM; "none" if no plan has needed one."""
        return _named(self.header.policy), _named(self.header.prm)

    @property
    def wanted(self) -> int:
        """Number of searches of the finished run."""
        return len(self.plans) * len(self.problems)

    @property
    def done(self) -> int:
        """Number of searches finished so far."""
        return sum(map(len, self.outcomes.values()))

    def samples(self, plan: str) -> int:
        """Return the largest number of independent samples per problem of this plan; 0 if its samples are dependent."""
        known = self.plans[plan]
        if known.strategy not in SAMPLED or not known.sampling.temperature:
            return 0
        return max((len(one.solutions) for one in self.outcomes.get(plan, {}).values()), default=0)

    @cached_property
    def reference(self) -> str | None:
        """The plan with the most independent samples, which defines pass@1 of problems; None if there is none."""
        best = max(self.outcomes, key=self.samples, default=None)
        return best if best is not None and self.samples(best) > 1 else None


def _named(model: ModelInfo | None) -> str:
    return "none" if model is None else model.name


def load(folders: Sequence[Path]) -> list[LoadedRun]:
    """Load the runs of several folders, each with a unique name.

    Raises:
        UsageError: A folder is not that of a run, is given twice, or contains no outcome yet.
        RecordError: A file in it is damaged, or of a newer version.
    """
    places = [folder.expanduser().resolve() for folder in folders]
    counts = Counter(places)
    for folder, place in zip(folders, places, strict=True):
        if counts[place] > 1:
            raise UsageError(f"{folder} is given twice: a run is not compared with itself")
    taken = Counter(place.name for place in places)
    names = [place.name if taken[place.name] == 1 else f"{place.parent.name}/{place.name}" for place in places]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    return [_read(folder, name) for folder, name in zip(folders, names, strict=True)]


def _read(folder: Path, name: str) -> LoadedRun:
    place = folder.expanduser()
    if not place.is_dir():
        what = "is a file, and no folder of a run" if place.exists() else "is not there"
        raise UsageError(f"{folder} {what}: give the folder that `tts-tui eval` wrote")
    run = LoadedRun(folder, name, read_header(place), read_items(place), read_outcomes(place))
    if not run.outcomes:
        raise UsageError(f"nothing in {folder} is done yet: let `tts-tui eval` go on until problems are")
    return run
