"""The events of a search, as frozen values with a JSON form.

A line of a recording, a line of `--display json` and an item of `Solver.stream` are the same event. The tree is the
fold of these events (`tts_tui.tree.search_tree`): no display and no recorder keeps state of its own.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Struct

from tts_tui.answers.voting import AnswerVotes
from tts_tui.errors import RecordCorrupt
from tts_tui.formatting import escape_json
from tts_tui.plan import Plan
from tts_tui.protocols import Count, Finish, ModelInfo, TokenId, Usage
from tts_tui.tree.totals import Flops, PlanSummary, Tokens

FORMAT = 5
"""Version of the event format. Every recording states its version, and readers refuse any other."""

ROOT = 0
"""Id of the root node, which stands for the prompt."""

HAND = 1_000_000
"""Group of the steps that a person asked for: a number above all groups of a strategy."""
WRITTEN = HAND + 1
"""Group of the steps that a person wrote."""

By = Literal["strategy", "person"]

Reason = Literal["solved", "unsolved", "budget", "timeout", "interrupted", "failed"]
"""The reason why a search ended: it ran to its end with or without an answer ("solved", "unsolved"), its tokens or
FLOPs were spent ("budget"), its time limit was reached ("timeout"), it was stopped ("interrupted"), or the models
failed ("failed"). The result always has the best answer so far."""


def _tag(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


class Event(Struct, frozen=True, tag_field="event", tag=_tag, kw_only=True, omit_defaults=True):
    """Base of all events.

    Attributes:
        t: Seconds since the search began.
    """

    t: float = 0.0


class Origin(Struct, frozen=True):
    """The origin of a fork.

    Attributes:
        run: The `SearchStarted.run` of the search that it was forked from.
        node: The node of that search that the fork continues.
        steps: Number of steps that lead to the node. They are the first nodes after the root, copied at no cost, and
            the node whose id is this number is the root of the fork's own search.
    """

    run: str
    node: int
    steps: Annotated[int, msgspec.Meta(ge=0)]


class SearchStarted(Event, frozen=True):
    """The first event of a search. The root node exists from here on.

    Attributes:
        problem: The problem as text.
        plan: The plan to follow.
        policy: The description of the policy.
        prm: The description of the reward model; None if there is none.
        prompt_ids: Token ids of the prompt.
        version: Version of this package.
        created: Date and time (UTC), in ISO format.
        format: Version of the event format.
        run: A random id of this search.
        origin: The origin of a fork; None for any other search.
    """

    problem: str
    plan: Plan
    policy: ModelInfo
    prm: ModelInfo | None
    prompt_ids: tuple[TokenId, ...]
    version: str
    created: str
    # A factory, because plain defaults are left out when an event is written.
    format: int = msgspec.field(default_factory=lambda: FORMAT)
    run: str = ""
    origin: Origin | None = None


class SearchResumed(Event, frozen=True):
    """A recording was resumed; steps that were being generated at the interruption are started again.

    Attributes:
        created: Date and time (UTC) of the resumption, in ISO format.
    """

    created: str


class StepStarted(Event, frozen=True):
    """The policy began to generate a step, or a person wrote one.

    Attributes:
        node: Id of the step: one more than the previous id.
        parent: Id of the node that it continues.
        slot: Index of the continuation among those of the parent, from 0. A retry has the same slot and a new node.
        group: Independent part of the search that the step belongs to (a DVTS subtree); part of the slot's identity.
        ahead: Usage of the part that was generated speculatively, and counted by `SpeculativeTokens`, before the step
            was requested.
        by: The origin of the step: the strategy, or a person who asked for it or wrote it.
    """

    node: int
    parent: int
    slot: int
    group: int = 0
    ahead: Usage = Usage()
    by: By = "strategy"


class SpeculativeTokens(Event, frozen=True):
    """Tokens were generated speculatively after a step, in case the search continues from it.

    They are spent either way; the part that is used appears in `StepStarted.ahead`. For the root, this also counts the
    cost of encoding the prompt for a decision of the controller that was not made.

    Attributes:
        node: Id of the step that the tokens follow.
        usage: Usage of the tokens.
    """

    node: int
    usage: Usage


class StepStreamed(Event, frozen=True):
    """A piece of the text of a step that is being generated.

    Attributes:
        node: Id of the step.
        text: The new text.
        usage: Usage since the previous piece.
    """

    node: int
    text: str
    usage: Usage = Usage()


class StepFinished(Event, frozen=True):
    """A step is finished.

    Attributes:
        node: Id of the step.
        ids: Exact token ids of the step, separator or end of text included.
        text: Text of the token ids.
        finish: How the step ended.
        usage: Total usage of the step; replaces the streamed usage.
    """

    node: int
    ids: tuple[TokenId, ...]
    text: str
    finish: Finish
    usage: Usage


class StepFailed(Event, frozen=True):
    """A step could not be generated, or was interrupted by the end of the search.

    Attributes:
        node: Id of the step.
        error: The cause, in one sentence.
        retry: True if another attempt follows in the same slot.
        usage: Tokens spent on the failed step.
    """

    node: int
    error: str
    retry: bool = False
    usage: Usage = Usage()


class StepMerged(Event, frozen=True):
    """A step was merged into an identical sibling, and only the sibling is continued; its tokens still count.

    Attributes:
        node: Id of the merged step.
        into: Id of the sibling.
    """

    node: int
    into: int


class StepScored(Event, frozen=True):
    """The PRM scored a step.

    Attributes:
        node: Id of the step.
        score: The score in [0, 1].
        computed: Tokens that the PRM computed for it.
        cached: Tokens that the PRM reused from a cache.
        unseen: Number of steps of the path that did not fit the PRM's context.
    """

    node: int
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    computed: Count = 0
    cached: Count = 0
    unseen: Count = 0


class ScoreFailed(Event, frozen=True):
    """Steps could not be scored.

    Attributes:
        nodes: Ids of the steps.
        error: The cause, in one sentence.
        retry: True if another attempt follows; otherwise the steps stay without a score.
    """

    nodes: tuple[int, ...]
    error: str
    retry: bool = False


class NodesKept(Event, frozen=True):
    """The strategy continues with these nodes, or a person restored them after a person or the strategy pruned them.

    Attributes:
        nodes: Ids of the nodes.
        why: The reason, for displays.
        by: The origin of the decision: the strategy or a person.
    """

    nodes: tuple[int, ...]
    why: str
    by: By = "strategy"


class NodesPruned(Event, frozen=True):
    """The strategy pruned these nodes, or a person cut them with everything below.

    Attributes:
        nodes: Ids of the nodes.
        why: The reason, for displays.
        by: The origin of the decision: the strategy or a person.
    """

    nodes: tuple[int, ...]
    why: str
    by: By = "strategy"


class BranchBegun(Event, frozen=True):
    """The plan's strategy also runs from this node, as a separate run whose solutions vote too.

    Attributes:
        node: Id of the node.
    """

    node: int


class PlanChanged(Event, frozen=True):
    """A person changed the plan. If the strategy must decide again, all nodes it had pruned are restored; cuts stay.

    Attributes:
        plan: The new plan.
    """

    plan: Plan


class Considered(Struct, frozen=True):
    """An option that the controller considered.

    Attributes:
        plan: Name of the option: "stop", or strategy and n as in `best-of-n:16`; n includes existing candidates.
        accuracy: Expected share of right answers in cases like this one, 0 to 1.
        tokens: Expected further cost, in policy tokens; PRM tokens are weighted by the PRM's size.
    """

    plan: str
    accuracy: float
    tokens: float


class PlanChosen(Event, frozen=True):
    """The controller assessed the solutions so far, and decided how to continue.

    Attributes:
        samples: Number of solutions that the controller had seen.
        pass1: Expected pass@1 of the policy on this problem.
        low, high: The interval that contains pass@1 with 90 % probability.
        levels: Probabilities that the problem is easy, medium and hard for this policy.
        answer: The answer so far, or None.
        confidence: Probability that the answer is right.
        changes: Probability that the best continuation would turn a wrong answer into the right one, or the reverse.
        considered: The options, best first.
        chosen: Name of the chosen option; "stop" ends the search.
        strategy: Name of the strategy that continues now; empty if the search ends.
        n: Number of candidates of that strategy, including existing ones; it may be less than the chosen option has,
            because the controller may decide again in between.
        basis: The data that the decision rests on, in words.
        why: The decision, in one sentence.
        root: Id of the node that the strategy runs from.
        usage: Usage of encoding the prompt, if it was encoded for this decision.
    """

    samples: Count
    pass1: float
    low: float
    high: float
    levels: tuple[float, float, float]
    answer: str | None
    confidence: float
    changes: float
    considered: tuple[Considered, ...]
    chosen: str
    strategy: str
    n: Count
    basis: str
    why: str
    root: int = ROOT
    usage: Usage = Usage()


class SolutionFound(Event, frozen=True):
    """A path was completed.

    Attributes:
        node: Id of the last step.
        answer: The answer extracted from the path; None if there is none.
    """

    node: int
    answer: str | None


class AnswersMatched(Event, frozen=True):
    """Two answers mean the same although their canonical forms differ: their votes are counted together.

    Attributes:
        left, right: The answers as written.
    """

    left: str
    right: str


class Notice(Event, frozen=True):
    """A message for people that does not change the search.

    Attributes:
        message: The message, one sentence.
        warning: True if something that was requested is lost. Displays also print it on standard error.
    """

    message: str
    warning: bool = False


class SearchPaused(Event, frozen=True):
    """The search was paused: no new step of a strategy starts until `SearchContinued`."""


class SearchStepped(Event, frozen=True):
    """One step, or one round of steps, was let through a pause.

    Attributes:
        round: True for a round of steps, False for one step.
    """

    round: bool = False


class SearchContinued(Event, frozen=True):
    """The pause has ended: steps start again."""


class SearchFinished(Event, frozen=True, omit_defaults=False):
    """The last event: the answer, why the search ended, and what it cost.

    Attributes:
        answer: The answer that won the vote, or None.
        node: Id of the solution that represents the answer, or None.
        reason: The reason why the search ended.
        detail: The reason in words, with details.
        plan: The part of the plan that results are compared by.
        tokens: Tokens of policy and PRM.
        flops: FLOPs of policy and PRM.
        seconds: Duration of the search.
        votes: All answers with their votes, best first.
        nodes: Number of steps in the tree.
        undecided: Number of pairs of answers that voted separately because they could not be compared.
    """

    answer: str | None
    node: int | None
    reason: Reason
    detail: str
    plan: PlanSummary
    tokens: Tokens
    flops: Flops
    seconds: float
    votes: tuple[AnswerVotes, ...]
    nodes: Count
    undecided: Count = 0


AnyEvent = (
    SearchStarted
    | SearchResumed
    | StepStarted
    | SpeculativeTokens
    | StepStreamed
    | StepFinished
    | StepFailed
    | StepMerged
    | StepScored
    | ScoreFailed
    | NodesKept
    | NodesPruned
    | BranchBegun
    | PlanChanged
    | PlanChosen
    | SolutionFound
    | AnswersMatched
    | Notice
    | SearchPaused
    | SearchStepped
    | SearchContinued
    | SearchFinished
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def encode(event: Event) -> bytes:
    """Return an event as one line of JSON, without the line feed and safe to print on a terminal."""
    return escape_json(_encoder.encode(event))


def decode(line: bytes | str) -> AnyEvent:
    """Return the event of one line of JSON.

    Raises:
        RecordCorrupt: The line is not an event of this format.
    """
    try:
        return _decoder.decode(line)
    except MemoryError:
        raise
    except Exception as error:  # values validate themselves and raise their own errors, such as `PlanError`
        raise RecordCorrupt(f"not an event: {error}") from error
