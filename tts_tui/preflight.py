"""The checks before a search is started, forked or resumed. Each failure is an error with a one-sentence message."""

from __future__ import annotations

from collections.abc import Sequence

from tts_tui.errors import BackendBadResponse, PlanError, UsageError
from tts_tui.plan import Plan
from tts_tui.protocols import MOST_TOKEN_IDS, ModelInfo, Policy, RewardModel
from tts_tui.tree.events import SearchStarted
from tts_tui.tree.search_tree import SearchTree


def check_problem(problem: str) -> str:
    """Return the problem without surrounding white space.

    Raises:
        UsageError: The problem is empty, or not text.
    """
    if "\0" in problem:
        raise UsageError("the problem is not text: it holds NUL bytes")
    try:
        problem.encode()
    except UnicodeEncodeError:
        raise UsageError("the problem is not text: it holds half of a surrogate pair") from None
    if not problem.strip():
        raise UsageError("the problem is empty: give it as an argument, with --file, or on standard input as -")
    return problem.strip()


def check_ids(ids: Sequence[int]) -> None:
    """Check that token ids from a policy can be stored in the tree.

    Raises:
        BackendBadResponse: A token id is negative, or too large.
    """
    if ids and (min(ids) < 0 or max(ids) >= MOST_TOKEN_IDS):
        bad = next(number for number in ids if not 0 <= number < MOST_TOKEN_IDS)
        raise BackendBadResponse(f"the policy gave {bad} as a token id, which none can be")


def check_path(tree: SearchTree) -> None:
    """Check that the recording of a fork has the complete path that was copied into it.

    Raises:
        UsageError: The recording ends within that path.
    """
    steps = tree.start.origin.steps if tree.start.origin else 0
    if len(tree) < steps or any(node.state != "done" for node in tree.nodes[: steps + 1]):
        raise UsageError("the recording ends within the path that it was forked with: fork again")


def is_complete(tree: SearchTree) -> bool:
    """Return whether the recorded search ran to its own end, so that there is nothing to resume."""
    return tree.finished is not None and tree.finished.reason in ("solved", "unsolved")


def check_left(tree: SearchTree, plan: Plan) -> None:
    """Check that a recorded search has not yet spent the budget of `plan`.

    Raises:
        PlanError: The budget is spent.
    """
    spent = plan.budget.overrun(tree.counts, tree.start.policy, tree.start.prm)
    if plan.budget.seconds is not None and tree.seconds - tree.held >= plan.budget.seconds:
        spent = f"the time limit of {plan.budget.seconds:g} s is reached"
    if spent:
        raise PlanError(f"{spent} already in this recording: give a larger one to go on")


def check_policy(start: SearchStarted, policy: Policy) -> None:
    """Check that a recording was made with `policy`; its token ids mean nothing to another one.

    Raises:
        UsageError: The recording was made with another policy.
    """
    if start.policy.name != policy.info.name:
        raise UsageError(_another("policy", start.policy.name, policy.info.name))


def check_prm(start: SearchStarted, prm: RewardModel | None) -> None:
    """Check that a recording was made with the same reward model as `prm`.

    Raises:
        UsageError: The recording was made with another reward model, or one of the two has none.
    """
    given = prm.info if prm else None
    if not same_prm(start.prm, given):
        short = (start.prm is None) != (given is None) or (start.prm and given and start.prm.name != given.name)
        recorded, now = (
            None if info is None else info.name if short else _in_full(info) for info in (start.prm, given)
        )
        raise UsageError(_another("reward model", recorded, now))


def same_prm(one: ModelInfo | None, other: ModelInfo | None) -> bool:
    """Return whether scores of two reward models are comparable: the same model, with the same input layout."""
    if one is None or other is None:
        return one is other
    return (one.name, one.family) == (other.name, other.family)


def _in_full(info: ModelInfo) -> str:
    return f"{info.name} as {info.family}"


def _another(what: str, recorded: str | None, given: str | None) -> str:
    return f"the recording was made with the {what} {recorded}, not {given}: go on with that"
