"""Plots of reports: accuracy against cost, and by difficulty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from tts_tui.controller.levels import LEVELS
from tts_tui.errors import UsageError
from tts_tui.evaluation.loaded_run import LoadedRun
from tts_tui.evaluation.reports.figures import Figure
from tts_tui.evaluation.reports.report import Report

_AXES = {"tokens": "computed tokens a problem, policy and PRM", "flops": "FLOPs a problem, policy and PRM"}
_SHARED = "what plans of one run share is counted for the one that came first"
_KINDS = ("svg", "png")


class PlotLine(Struct, frozen=True):
    """A line of accuracy against cost: a family of plans that differ in N, or one plan's votes over fewer samples.

    Attributes:
        label: Label of the line; the plan's own name if it is alone in its family.
        points: Cost, and accuracy with its interval.
        resampled: Whether these are votes over fewer of the same samples.
    """

    label: str
    points: tuple[tuple[float, Figure], ...]
    resampled: bool


def lines(report: Report, runs: Sequence[LoadedRun], cost: str) -> list[PlotLine]:
    """Return the lines of a plot, with `cost` being "tokens" or "flops"."""
    known = {(one.run, one.plan, one.group, one.measure): one for one in report.figures}
    families: dict[str, list[tuple[float, Figure]]] = {}
    names: dict[str, str] = {}
    found = []
    for run in runs:
        before = f"{run.name} " if len(runs) > 1 else ""
        for plan in run.plans:
            accuracy, spent = (known.get((run.name, plan, "all", name)) for name in ("accuracy", cost))
            if accuracy is not None and spent is not None:
                own = before + family(plan)
                names[own] = own if own in families else before + plan
                families.setdefault(own, []).append((spent.value, accuracy))
            found += _votes(known, run, plan, cost, before)
    whole = [
        PlotLine(names[own], tuple(sorted(points, key=lambda one: one[0])), False) for own, points in families.items()
    ]
    return [*whole, *found]


def family(plan: str) -> str:
    """Return a plan's name without its N: `dvts:16,m=2` becomes `dvts,m=2`."""
    head, _, rest = plan.partition(",")
    return ",".join(filter(None, (head.partition(":")[0], rest)))


def _votes(
    known: dict[tuple[str, str, str, str], Figure], run: LoadedRun, plan: str, cost: str, before: str
) -> list[PlotLine]:
    """Return lines of votes over fewer samples of a plan: the majority, which needs no PRM, and the plan's own vote."""
    settings = run.plans[plan]
    own = f"{settings.score} {settings.vote}"
    alone = "policy tokens" if cost == "tokens" else "policy flops"
    sizes = [group for run_name, name, group, what in known if (run_name, name, what) == (run.name, plan, cost)]
    found = []
    for vote, price in (("majority", alone), (own, cost)):
        keys = [(run.name, plan, size) for size in sizes if size.startswith("n=")]
        points = tuple(
            (known[*key, price].value, known[*key, f"accuracy {vote}"])
            for key in keys
            if (*key, f"accuracy {vote}") in known
        )
        if len(points) > 1:
            found.append(PlotLine(f"{before}{vote} of {plan}, fewer samples", points, True))
    return found


def draw(report: Report, runs: Sequence[LoadedRun], folder: Path) -> list[Path]:
    """Write the plots as SVG and PNG, and return their paths.

    Raises:
        UsageError: The files cannot be written.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError("pictures need matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    # The output is deterministic: the same report gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "tts-tui", "svg.fonttype": "none", "font.size": 9}):
        pictures = {f"accuracy-{cost}": _costs(report, runs, cost) for cost in _AXES}
        levels = _levels(report, len(runs) > 1)
        if levels is not None:
            pictures["accuracy-difficulty"] = levels
        return [path for name, figure in pictures.items() for path in _save(figure, folder, name)]


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(8, 5), layout="constrained")
    return figure, figure.add_subplot()


def _costs(report: Report, runs: Sequence[LoadedRun], cost: str) -> Any:
    figure, axes = _figure()
    for number, line in enumerate(lines(report, runs, cost)):
        costs = [spent for spent, _ in line.points]
        values = [100 * own.value for _, own in line.points]
        bars = [
            [100 * (own.value - (own.low or 0.0)) for _, own in line.points],
            [100 * ((own.high or 0.0) - own.value) for _, own in line.points],
        ]
        style = {"linestyle": "--", "marker": ".", "alpha": 0.6} if line.resampled else {"marker": "o"}
        axes.errorbar(costs, values, yerr=bars, label=line.label, color=f"C{number % 10}", capsize=3, **style)
    axes.set_xscale("log")
    below = f"\n({_SHARED})" if report.sharing else ""
    axes.set(xlabel=_AXES[cost] + below, ylabel="accuracy in %, with intervals of 95 %")
    axes.grid(alpha=0.3)
    _legend(figure)
    return figure


def _levels(report: Report, several: bool) -> Any | None:
    """Return a bar chart by difficulty; None if the difficulty is unknown."""
    shown = [one for one in report.figures if one.group.startswith("difficulty ") and one.measure == "accuracy"]
    if not shown:
        return None
    figure, axes = _figure()
    plans = list(dict.fromkeys((one.run, one.plan) for one in shown))
    known = {(one.run, one.plan, one.group): one for one in shown}
    width = 0.8 / len(plans)
    for number, plan in enumerate(plans):
        own = [(place, known.get((*plan, f"difficulty {level}"))) for place, level in enumerate(LEVELS)]
        bars = [(place + (number + 0.5) * width - 0.4, one) for place, one in own if one is not None]
        values = [100 * one.value for _, one in bars]
        low = [100 * (one.value - (one.low or 0.0)) for _, one in bars]
        high = [100 * ((one.high or 0.0) - one.value) for _, one in bars]
        label = " ".join(plan) if several else plan[1]
        axes.bar([place for place, _ in bars], values, width * 0.9, yerr=[low, high], label=label, capsize=3)
    sizes = {level: max((one.n for one in shown if one.group.endswith(level)), default=0) for level in LEVELS}
    axes.set_xticks(range(len(LEVELS)), [f"{level} ({sizes[level]})" for level in LEVELS])
    axes.set(xlabel="difficulty for this policy (problems)", ylabel="accuracy in %, with intervals of 95 %")
    _legend(figure)
    return figure


def _legend(figure: Any) -> None:
    figure.legend(loc="outside lower center", ncols=2, frameon=False)


def _save(figure: Any, folder: Path, name: str) -> list[Path]:
    written = []
    for kind in _KINDS:
        path = folder / f"{name}.{kind}"
        try:
            figure.savefig(path, metadata={"Date": None} if kind == "svg" else None, dpi=150)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        written.append(path)
    return written
