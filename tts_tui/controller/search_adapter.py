"""The controller's view of a search: the encoded prompt, the tree as samples, the votes and the cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from tts_tui.answers.voting import Candidate, path_score, tally
from tts_tui.controller import priors
from tts_tui.controller.calibration import Calibration, check_models, find
from tts_tui.controller.controller import Objective, PlanController, price_of
from tts_tui.controller.difficulty import Observation
from tts_tui.errors import BackendError
from tts_tui.plan import Plan
from tts_tui.protocols import ExposesHiddenStates, Policy, Prompt, PromptEncoding, Usage
from tts_tui.tree.events import PlanChosen
from tts_tui.tree.search_tree import Node, SearchTree

ATTEMPTS, BACKOFF = 3, 0.5
"""Attempts at encoding a prompt, and seconds before the second one, doubled for the third."""


class SearchController:
    """A controller for one search.

    Args:
        calibration: The calibration of the search's models.
        tree: The search, which must have started.
        reading: The policy's encoding of the prompt, with the token usage not yet recorded.
        trouble: Reason why there is no encoding, if there should be one.

    Raises:
        PlanError: The plan's target is out of reach.
    """

    def __init__(
        self, calibration: Calibration, tree: SearchTree, reading: PromptEncoding | None = None, trouble: str = ""
    ) -> None:
        plan, start = tree.plan, tree.start
        self._tree = tree
        self._reading = reading or PromptEncoding()
        own = (calibration.score, calibration.vote)
        self._apart = (
            f" with score {own[0]} and vote {own[1]}, not those of this search: what is expected is rough"
            if calibration.is_measured and own != (plan.score, plan.vote)
            else ""
        )
        if trouble:
            self._apart += f"; without the policy's reading of the prompt ({trouble})"
        self._weight = start.prm.parameters / max(1, start.policy.parameters) if start.prm else 0.0
        wish = objective_of(calibration, plan, scores=start.prm is not None and plan.vote != "majority")
        self.controller = PlanController(
            calibration, wish, calibration.values(start.problem, self._reading.hidden_state)
        )

    def choose(self, samples: Sequence[Node], searched: Sequence[Node], done: Mapping[str, int]) -> PlanChosen:
        """Choose the next plan; see `PlanController.choose`.

        Args:
            samples: Independent samples, by slot.
            searched: Solutions chosen by tree searches.
            done: Number of candidates that each strategy has had.
        """
        tree, plan = self._tree, self._tree.plan
        nodes = [*samples, *searched]
        keys: dict[str, int] = {}
        groups = [
            -1 if node.answer is None else keys.setdefault(tree.matching.key(node.answer), len(keys)) for node in nodes
        ]
        independent = set(samples)
        scoring = max(0.0, self._weight * tree.counts.prm_computed - self.controller.calibration.overhead)
        rate = 1 + scoring / max(1, tree.counts.completion)
        seen = [
            Observation(group, path_score(node.scores, plan.score), len(node.path_ids) * rate, node in independent)
            for node, group in zip(nodes, groups, strict=True)
        ]
        votes = tally(
            [Candidate(node.id, node.answer, tuple(node.scores)) for node in nodes],
            plan.score,
            plan.vote,
            tree.matching.key,
        )
        answer = votes[0].answer if votes else None
        elected = keys[tree.matching.key(answer)] if answer is not None else -1
        usage = self._reading.usage
        spent = tree.counts.computed + usage.prompt_computed + usage.completion
        choice = self.controller.choose(seen, elected, answer, spent, dict(done))
        return replace(choice, usage=usage, basis=choice.basis + self._apart)


class SearchControllerFactory:
    """A factory of controllers for a search. The prompt is encoded at most once, and only if the calibration uses it.

    Args:
        policy: The policy of the search, started.
        prompt: The prompt of the search.
        given: A calibration to use instead of the one found by the names of the models.
    """

    def __init__(self, policy: Policy, prompt: Prompt, given: Calibration | None = None) -> None:
        self._policy, self._prompt, self._given = policy, prompt, given
        self._lock = asyncio.Lock()
        self._reading: PromptEncoding | None = None
        # Usage of encodings that failed or were cancelled.
        self._failed = Usage()
        self._trouble = ""

    @property
    def owed(self) -> Usage:
        """Token usage of encoding the prompt that is not yet recorded."""
        return self._failed + (self._reading.usage if self._reading is not None else Usage())

    async def of(self, tree: SearchTree) -> SearchController:
        """Return a controller for the search with its current plan.

        Raises:
            CalibrationError: The calibration is of other models, or cannot be used.
            PlanError: The plan's target is out of reach.
        """
        found = calibration_of(tree, self._given)
        price_of(found, tree.plan.target_tokens, tree.plan.target_accuracy)  # fail before spending any tokens
        async with self._lock:
            if found.projection is not None and self._reading is None and isinstance(self._policy, ExposesHiddenStates):
                self._reading = await self._read(self._policy)
        reading = replace(self._reading, usage=self.owed) if self._reading is not None else None
        return SearchController(found, tree, reading, self._trouble)

    def told(self) -> None:
        """Mark the usage of encoding the prompt as recorded."""
        self._failed = Usage()
        if self._reading is not None:
            self._reading = PromptEncoding(self._reading.hidden_state)

    async def _read(self, policy: ExposesHiddenStates) -> PromptEncoding:
        """Return the policy's encoding of the prompt; empty on permanent failure, as the text alone is useful too."""
        for attempt in range(ATTEMPTS):
            try:
                reading = await policy.encode_prompt(self._prompt, self._spend)
            except BackendError as error:
                self._trouble = str(error)
                if not error.retryable:
                    break
                await asyncio.sleep(BACKOFF * 2**attempt)
            else:
                self._trouble = ""
                return reading
        return PromptEncoding()

    def _spend(self, usage: Usage) -> None:
        self._failed += usage


def calibration_of(tree: SearchTree, given: Calibration | None = None) -> Calibration:
    """Return the calibration to use for a search: the given one, else that of its models, else priors.

    Raises:
        CalibrationError: The calibration is of other models, or cannot be used.
    """
    policy, prm, plan = tree.start.policy, tree.start.prm, tree.plan
    if given is not None:
        check_models(given, policy, prm)
    return given or find(policy, prm) or priors.calibration(policy, prm, plan.score, plan.vote)


def objective_of(calibration: Calibration, plan: Plan, *, scores: bool) -> Objective:
    """Return the controller's objective for a plan.

    Raises:
        PlanError: The plan's target is out of reach.
    """
    price = price_of(calibration, plan.target_tokens, plan.target_accuracy)
    return Objective(plan.n, plan.m, plan.budget.tokens, price, scores)
