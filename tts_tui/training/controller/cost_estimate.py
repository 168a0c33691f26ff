"""Estimates of a calibration's cost: tokens before it begins, and time once the pace is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import fmean

from msgspec import Struct

from tts_tui.backends.local import download
from tts_tui.displays.eval_progress import EvalProgress, span
from tts_tui.errors import TTSError
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.runner import EvalStatus, Evaluation, samples
from tts_tui.formatting import plural
from tts_tui.protocols import ModelInfo

SMALL, USUAL = 75, 300
"""Tokens that a sample is assumed to have if nothing is known: of the embedded policy, and of others."""


class Cost(Struct, frozen=True):
    """The estimated cost of the remaining work.

    Attributes:
        searches: Number of searches in each part.
        candidates: Maximum number of candidates of all searches together.
        tokens: Tokens computed by policy and PRM in each part.
        basis: A phrase that describes the source of the estimate.
    """

    searches: tuple[int, ...]
    candidates: int
    tokens: tuple[float, ...]
    basis: str

    @property
    def said(self) -> str:
        """A sentence that describes the remaining work."""
        if not self.candidates:
            return "all searches are done: what is left is to fit"
        searches = sum(self.searches)
        return (
            f"{searches:,} {'search' if searches == 1 else 'searches'} to do with up to "
            f"{plural(self.candidates, 'sample')}: about {_rounded(sum(self.tokens))} tokens, {self.basis}; how long "
            "that takes is said once the first few are done"
        )


def cost(parts: Sequence[Evaluation], policy: str) -> Cost:
    """Estimate the cost of a calibration's parts, from outcomes so far, else from what is known about the policy.

    Args:
        parts: The parts, in order.
        policy: The policy as the user named it.
    """
    done = [[_each(part, one) for one in part.folder.outcomes.values() if _counts(part, one)] for part in parts]
    known = [tokens for own in done for tokens in own]
    if known:
        usual, basis = fmean(known), f"at {fmean(known):.0f} a sample as in what is done already"
    else:
        usual, basis = _usual(policy)
    waiting = [part.pending() for part in parts]
    counts = [samples(part.plans, own) for part, own in zip(parts, waiting, strict=True)]
    tokens = (
        sum(part.plans[name].n * _mean(part, name, usual) for _, name in own)
        for part, own in zip(parts, waiting, strict=True)
    )
    return Cost(tuple(map(len, waiting)), sum(counts), tuple(tokens), basis)


def _counts(part: Evaluation, one: Outcome) -> bool:
    return one.reason != "failed" and one.plan in part.plans


def _each(part: Evaluation, one: Outcome) -> float:
    """Return the tokens of a candidate."""
    policy = one.tokens.policy
    return (policy.prompt_computed + policy.completion + one.tokens.prm.computed) / part.plans[one.plan].n


def _mean(part: Evaluation, name: str, usual: float) -> float:
    """Return the mean tokens of a candidate of a plan, or `usual` if none of the plan's searches is done."""
    own = [_each(part, one) for one in part.folder.outcomes.values() if one.plan == name and _counts(part, one)]
    return fmean(own) if own else usual


def _usual(policy: str) -> tuple[float, str]:
    """Return the assumed tokens of a sample before any exists, and a phrase that describes the source."""
    if policy != download.EMBEDDED.name:
        return USUAL, f"if a sample takes {USUAL}, for nothing is known of this policy yet"
    from tts_tui.backends.adapter.reward_model import TITLE
    from tts_tui.controller.calibration import find

    with suppress(TTSError):  # an unreadable calibration is reported where it is needed
        found = find(ModelInfo(download.EMBEDDED.title, 1, 1), ModelInfo(TITLE, 1, 1))
        if found is not None and found.sample_tokens:
            return found.sample_tokens, f"at {found.sample_tokens:.0f} a sample as calibrated before"
    return SMALL, f"if a sample takes {SMALL}"


def _rounded(tokens: float) -> str:
    """Format tokens, rounded to two significant digits: `590,000`."""
    return f"{float(f'{tokens:.2g}'):,.0f}"


class Time:
    """A reporter that announces once how long all parts will take, as soon as the pace of one part is known.

    Args:
        cost: The estimated cost.
        say: Called with the announcement.
    """

    def __init__(self, cost: Cost, say: Callable[[str], None]) -> None:
        self._cost, self._say = cost, say
        self._said = False

    def follow(self, part: int, progress: EvalProgress) -> Callable[[EvalStatus], None]:
        """Return a callback for the status updates of a part, which also passes them on to `progress`."""
        searches, tokens = self._cost.searches[part], self._cost.tokens[part]
        later = sum(self._cost.tokens[part + 1 :])

        def tell(standing: EvalStatus) -> None:
            progress(standing)
            if self._said or standing.left is None or standing.done >= standing.total or not tokens:
                return
            self._said = True
            rest = tokens * min(1.0, (standing.total - standing.done) / searches)
            low, high = (end * (1 + later / rest) for end in standing.left)
            progress.close()
            self._say(f"at this pace, all searches together take {span((low, high))} from now on")

        return tell
