"""Solutions with step scores and labels: whether they are right, and which step is the first wrong one.

In runs on problem families, a program finds the first wrong step: a step with an equation that does not hold, or the
last step of a solution with a wrong answer whose other steps are all right. Otherwise the error is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from tts_tui.errors import RecordError, UsageError
from tts_tui.evaluation.datasets import families
from tts_tui.evaluation.datasets.loading import Item
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.run_folder import file_name
from tts_tui.protocols import Prompt

if TYPE_CHECKING:
    from tts_tui.evaluation.loaded_run import LoadedRun
    from tts_tui.evaluation.samples import Sampled
    from tts_tui.tree.search_tree import SearchTree


class Judged(Struct, frozen=True, kw_only=True):
    """A labelled solution.

    Attributes:
        id: Name of the solution.
        problem: Key that is shared by the solutions of a problem.
        steps: Texts of its steps; empty if they are unknown.
        right: Whether its answer is right.
        error: Index of the first wrong step, -1 if all are right, None if unknown.
        known: Number of leading steps known to be right.
        size: Length in tokens or characters.
        scores: Scores of its steps.
    """

    id: str
    problem: str
    right: bool
    size: int
    steps: tuple[str, ...] = ()
    error: int | None = None
    known: int = 0
    scores: tuple[float, ...] = ()

    def scored(self, scores: tuple[float, ...]) -> Judged:
        """Return a copy with these step scores."""
        return replace(self, scores=scores)


def scored_plan(run: LoadedRun) -> str:
    """Return the plan whose scored solutions are most informative about the PRM: that with the most independent ones.

    Raises:
        UsageError: No plan has scores.
    """
    scored = [plan for plan, known in run.outcomes.items() if any(map(_has_scores, known.values()))]
    if not scored:
        raise UsageError(
            f"no solution in {run.folder} has scores: evaluate a plan that asks a PRM, such as --plan best-of-n:8"
        )
    return max(scored, key=lambda plan: (run.samples(plan), run.plans[plan].n))


def _has_scores(outcome: Outcome) -> bool:
    return any(one.scores for one in outcome.solutions)


def of_outcomes(outcomes: Sequence[Outcome]) -> list[Judged]:
    """Return the scored solutions of a plan, without their steps."""
    return [
        Judged(
            id=f"{outcome.problem} {number}",
            problem=outcome.problem,
            right=one.right,
            size=one.tokens,
            scores=one.scores,
        )
        for outcome in outcomes
        for number, one in enumerate(outcome.solutions)
        if one.scores
    ]


def of_recordings(run: LoadedRun, plan: str) -> list[Judged]:
    """Return the scored solutions of family problems, with their steps and the labels that a program can derive."""
    from tts_tui.tree.recording import load

    found = []
    for id in run.outcomes[plan]:
        problem = family_problem(run.problems[id])
        path = run.folder.expanduser() / "recordings" / file_name(plan) / f"{file_name(id)}.jsonl"
        if problem is not None and path.exists():
            try:
                found += _of_tree(id, problem, load(path))
            except RecordError:  # its outcome still counts; only its steps are unknown
                continue
    return found


def family_problem(item: Item) -> families.Problem | None:
    """Return the problem that an item was made from; None if it is not a generated problem."""
    split, _, rest = item.id.partition("-")
    family, _, index = rest.rpartition("-")
    if family not in families.FAMILIES or split not in families.SPLITS or not index.isdecimal():
        return None
    try:
        made = families.problem(family, split, int(index))  # type: ignore[arg-type]
    except UsageError:
        return None
    return made if (made.question, made.answer) == (item.problem, item.answer) else None


def _of_tree(id: str, problem: families.Problem, tree: SearchTree) -> list[Judged]:
    from tts_tui.evaluation.judging import voters
    from tts_tui.evaluation.samples import Sampled, Solution
    from tts_tui.search.scoring import request_for

    nodes = [node for node in voters(tree) if node.scores]
    prompt = Prompt(problem.question, ())
    paths = [request_for(prompt, node) for node in nodes]
    solutions = tuple(
        Solution(path.steps, path.step_ids, node.finish or "", node.answer)
        for path, node in zip(paths, nodes, strict=True)
    )
    sampled = Sampled(problem, solutions)
    errors = first_wrong(sampled)
    return [
        Judged(
            id=f"{id} {node.id}",
            problem=id,
            right=right,
            size=own.tokens,
            steps=own.steps,
            error=error,
            known=known,
            scores=tuple(node.scores),
        )
        for node, own, right, (error, known) in zip(nodes, solutions, sampled.right, errors, strict=True)
        if len(node.scores) == len(own.steps)
    ]


def first_wrong(sampled: Sampled) -> list[tuple[int | None, int]]:
    """Return the first wrong step (see `Judged.error`) and the number of leading right ones of each solution."""
    from tts_tui.evaluation.prm.step_labels import step_holds, step_labels

    found: list[tuple[int | None, int]] = []
    for own, right, flags in zip(sampled.solutions, sampled.right, step_labels(sampled), strict=True):
        place = flags.index(False) if False in flags else -1
        if place < 0:
            found.append((-1 if right else None, len(flags)))
            continue
        ends = place == len(flags) - 1 and own.answer is not None
        sure = ends or not step_holds(own.steps[place], sampled.problem)
        found.append((place if sure else None, place))
    return found
