"""The result of a search: the vote, the last event, and the `Result` that programs receive."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from tts_tui.answers.voting import AnswerVotes, Candidate, tally
from tts_tui.budget import flops
from tts_tui.plan import Plan
from tts_tui.search.tasks import Stopped
from tts_tui.tree.event_log import EventLog
from tts_tui.tree.events import Reason, SearchFinished
from tts_tui.tree.search_tree import Node, SearchTree
from tts_tui.tree.totals import Flops, PlanSummary, PolicyTokens, PrmTokens, Tokens


class Result(Struct, frozen=True):
    """The result of a search.

    Attributes:
        problem: The problem as text.
        tree: The complete search tree.
        finished: The last event: answer, reason, votes, tokens, FLOPs, seconds.
        index: Position of the problem in the argument of `solve_many`.
    """

    problem: str
    tree: SearchTree
    finished: SearchFinished
    index: int = 0

    @property
    def answer(self) -> str | None:
        """The answer that won the vote, or None if there is none."""
        return self.finished.answer

    @property
    def reason(self) -> Reason:
        """The reason why the search ended."""
        return self.finished.reason

    @property
    def votes(self) -> tuple[AnswerVotes, ...]:
        """All answers with their votes, best first."""
        return self.finished.votes

    @property
    def undecided(self) -> int:
        """Number of pairs of answers that voted separately because they could not be compared."""
        return self.finished.undecided

    @property
    def solution(self) -> str:
        """The text of the solution that represents the answer; empty if there is none."""
        node = self.finished.node
        return "" if node is None else self.tree.nodes[node].path_text


def _summary(plan: Plan) -> PlanSummary:
    return PlanSummary(plan.strategy, plan.n, plan.m, plan.score, plan.vote)


def finish(
    journal: EventLog, solutions: Sequence[Node], stopped: Stopped | None, problem: str = "", undecided: int = 0
) -> SearchFinished:
    """Vote by the current plan, append the last event of the search, and return it.

    Args:
        journal: The event log of the search.
        solutions: The solutions that vote.
        stopped: The reason why the search ended early, or None if it did not.
        problem: The reason why steps failed for good; part of the detail if no answer was found.
        undecided: Number of pairs of answers that could not be compared.
    """
    tree, counts, plan = journal.tree, journal.tree.counts, journal.tree.plan
    candidates = [Candidate(node.id, node.answer, tuple(node.scores)) for node in solutions]
    votes = tally(candidates, plan.score, plan.vote, tree.matching.key)
    if stopped is not None:
        reason, detail = stopped.reason, stopped.detail
    elif votes:
        reason, detail = "solved", f"{_number(len(votes), 'answer')} from {_number(len(solutions), 'solution')}"
    else:
        reason, detail = "unsolved", f"no answer can be read out of {_number(len(solutions), 'solution')}"
        detail += f"; {problem}" if problem else ""
    if missing := _unscored(candidates, plan):
        detail += f"; {missing}"
    finished = SearchFinished(
        t=journal.now,
        answer=votes[0].answer if votes else None,
        node=votes[0].solutions[0] if votes else None,
        reason=reason,
        detail=detail,
        plan=_summary(plan),
        tokens=Tokens(
            PolicyTokens(
                counts.prompt_computed, counts.prompt_cached, counts.completion, journal.tree.ahead.completion
            ),
            PrmTokens(counts.prm_computed, counts.prm_cached),
        ),
        flops=Flops(*flops(counts, tree.start.policy, tree.start.prm)),
        seconds=journal.now,
        votes=votes,
        nodes=len(tree),
        undecided=undecided,
    )
    journal.append(finished)
    return finished


def _unscored(candidates: Sequence[Candidate], plan: Plan) -> str:
    """Return how missing scores affected the vote, for the user; empty if they did not."""
    answered = [candidate for candidate in candidates if candidate.answer is not None]
    without = sum(not candidate.scores for candidate in answered)
    if plan.vote == "majority" or not without:
        return ""
    if without == len(answered):
        return f"scores are missing in all of them, so the majority voted instead of {plan.vote}"
    lack = "lacks a score and does" if without == 1 else "lack a score and do"
    return f"{without} of {_number(len(answered), 'answered solution')} {lack} not vote"


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def failure(plan: Plan, detail: str) -> SearchFinished:
    """Return the last event of a search that could not begin, with reason "failed" and no cost."""
    return SearchFinished(
        answer=None,
        node=None,
        reason="failed",
        detail=detail,
        plan=_summary(plan),
        tokens=Tokens(PolicyTokens(0, 0, 0), PrmTokens(0, 0)),
        flops=Flops(0.0, 0.0),
        seconds=0.0,
        votes=(),
        nodes=0,
    )
