"""The decision whether measurements of a PRM suffice to change its default score and vote."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from msgspec import Struct

from tts_tui import profiles
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.prm.metrics import Findings
from tts_tui.evaluation.reports.figures import PAIRS, voted
from tts_tui.evaluation.statistics import holm, paired
from tts_tui.plan import Plan, Score, Vote
from tts_tui.profiles import user

FEWEST = 30
"""Minimum number of problems for a default to be changed."""
SURE = 0.05
"""Maximum p-value of a change, corrected for all pairs that could have looked best."""


class Verdict(Struct, frozen=True):
    """The score and vote to store in a profile.

    Attributes:
        defaults: Table of the profile: score, vote and source; empty if it has none. No source means the measurement
            itself.
        said: The verdict as a sentence for users.
    """

    defaults: dict[str, str]
    said: str


def present(name: str) -> tuple[Score, Vote]:
    """Return the default score and vote for the PRM with this profile."""
    usual = {"score": Plan().score, "vote": Plan().vote} | profiles.vote_defaults(name)
    return usual["score"], usual["vote"]  # type: ignore[return-value]


def verdict(name: str, findings: Findings, outcomes: Sequence[Outcome], *, counts: bool = True) -> Verdict:
    """Decide whether a profile's score and vote change, which needs enough problems and a significant difference.

    Args:
        name: Name of the profile.
        findings: The measurements.
        outcomes: Outcomes with votes; empty if there were none.
        counts: Whether the profile is one that is looked up for its PRM.
    """
    before = present(name)
    now = _named(before)
    stays = f"Score and vote stay {now}"
    kept = user.kept(name)
    if findings.vote is None:
        return Verdict(kept, f"{stays}: solutions of one problem, whose answers could vote, are not there.")
    best = _named((findings.score, findings.vote))
    known = [one for one in outcomes if any(each.scores for each in one.solutions)]
    if best == now:
        return Verdict(kept, f"{stays}, which do best here, too.")
    if len(known) < FEWEST:
        few = f"{len(known)} problems are too few to change that, {FEWEST} are the least"
        return Verdict(kept, f"{stays}: {best} do best here, but {few}.")
    others = [pair for pair in PAIRS if pair not in ("majority", now)]
    right = {pair: [bool(voted(one, *PAIRS[pair])) for one in known] for pair in (*others, now)}
    p = dict(zip(others, holm([paired(right[pair], right[now]).p for pair in others]), strict=True))[best]
    shares = f"{fmean(right[best]):.1%} of {len(known)} problems, and {now} on {fmean(right[now]):.1%}"
    if p >= SURE or sum(right[best]) <= sum(right[now]):
        return Verdict(kept, f"{stays}: {best} are right on {shares}: no further apart than by chance (p {p:.2g}).")
    chosen: dict[str, str] = {"score": findings.score, "vote": findings.vote}
    where = "Score and vote are now" if counts else "Score and vote in this profile are"
    return Verdict(chosen, f"{where} {best}: right on {shares} (p {p:.2g}).")


def _named(pair: tuple[Score, Vote]) -> str:
    return "majority" if pair[1] == "majority" else " ".join(pair)
