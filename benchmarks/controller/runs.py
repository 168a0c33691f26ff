"""Runs of plans on the held-out problems; stored results are not computed again."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from tts_tui.backends.adapter.reward_model import AdapterPRM
from tts_tui.backends.local import download
from tts_tui.backends.local.embedded import EmbeddedPolicy
from tts_tui.evaluation.datasets.families import FAMILIES, problems
from tts_tui.evaluation.datasets.loading import Dataset, Item, item_of
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.plan_specs import make_all
from tts_tui.evaluation.run_folder import RunFolder, read_header, read_outcomes
from tts_tui.evaluation.runner import EvalStatus, Evaluation
from tts_tui.plan import Plan
from tts_tui.protocols import ModelInfo
from tts_tui.solver import Solver
from tts_tui.training.controller import hidden_states

SKIPPED = 8
"""Number of leading test problems of each family to leave out, since they were used during development."""

AT_ONCE = 16
"""Number of concurrent problems: rounds of the controller are small, and the engine batches across problems."""

STATES = "states.jsonl"
"""File of the policy's hidden states on the prompts."""


class Part(Struct, frozen=True):
    """A part of the benchmark.

    Attributes:
        specs: Specs of its plans.
        seed: Seed of all its plans. Plans of the same name in other parts have other seeds; together they form
            a larger plan.
        every: Stride of the problems: only every `every`-th one is used.
    """

    specs: tuple[str, ...]
    seed: int = 0
    every: int = 1


PARTS: dict[str, Part] = {
    "samples": Part(("best-of-n:16",)),
    "greedy": Part(("cot",)),
    "dvts": Part(("dvts:16",)),
    "dvts-2": Part(("dvts:16",), seed=1),
    "beam": Part(("beam:16",)),
    "votes": Part(("majority:48",), seed=1, every=4),
    "votes-2": Part(("majority:32",), seed=2, every=4),
    "votes-3": Part(("majority:24",), seed=3, every=4),
    "auto-500": Part(("auto:64,target_tokens=500",)),
    "auto-1000": Part(("auto:64,target_tokens=1000",)),
}
"""All parts, which may run concurrently. Plans of one part would share PRM computations, so each part has one plan."""


def items(count: int) -> list[Item]:
    """Return up to `count` test problems of each family, one of each in turn."""
    drawn = [problems(name, "test", SKIPPED + count)[SKIPPED:] for name in FAMILIES]
    return [item_of(own[place]) for place in range(count) for own in drawn if place < len(own)]


async def run(part: str, count: int, folder: Path, threads: int | None) -> None:
    """Run the unfinished searches of a part."""
    policy = EmbeddedPolicy(threads=threads)
    solver = Solver(policy, AdapterPRM(policy, threads=threads))
    plans = make_all(PARTS[part].specs, solver, seed=PARTS[part].seed)
    dataset = Dataset("families", ",".join(FAMILIES), "test", tuple(items(count)[:: PARTS[part].every]))
    said = 0

    def tell(standing: EvalStatus) -> None:
        nonlocal said
        if standing.done >= said + 20 or standing.done == standing.total:
            said = standing.done
            left = (
                ""
                if standing.left is None
                else f", {standing.left[0] / 60:.0f} to {standing.left[1] / 60:.0f} min left"
            )
            print(f"{part}: {standing.done} of {standing.total}{left}", file=sys.stderr, flush=True)

    with RunFolder(folder / part) as kept:
        evaluation = Evaluation(
            solver, kept, dataset, plans, specs=("embedded", "embedded"), parallel=AT_ONCE, tell=tell
        )
        if evaluation.pending():
            async with solver:
                await evaluation.run()


async def states(count: int, folder: Path, threads: int | None) -> None:
    """Compute the policy's hidden states on the prompts that are still missing."""
    wanted, path = items(count), folder / STATES
    kept = hidden_states.kept(path, download.EMBEDDED.title)
    if any(item.id not in kept for item in wanted):
        async with Solver(EmbeddedPolicy(threads=threads), None) as solver:
            await hidden_states.read(solver.policy, wanted, path)


def read(part: str, folder: Path) -> tuple[Mapping[str, Plan], Mapping[tuple[str, str], Outcome]]:
    """Return the plans of a part, and its outcomes by plan and problem."""
    if not (folder / part / "run.json").is_file():
        return {}, {}
    return read_header(folder / part).plans, {(one.plan, one.problem): one for one in read_outcomes(folder / part)}


def complete(
    wanted: Sequence[Item], parts: Mapping[str, tuple[Mapping[str, Plan], Mapping[tuple[str, str], Outcome]]]
) -> list[Item]:
    """Return the problems finished by every plan of every part that uses all problems."""
    whole = [part for name, part in parts.items() if PARTS[name].every == 1]
    return [item for item in wanted if all((name, item.id) in outcomes for plans, outcomes in whole for name in plans)]


def models(folder: Path) -> tuple[ModelInfo, ModelInfo | None]:
    """Return the models of the runs."""
    found = read_header(folder / "samples")
    return found.policy, found.prm
