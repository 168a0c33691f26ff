"""Everything that can happen in a search, as frozen values with a JSON form.

One line of a recording, one line of `--display json` and one item of `Solver.stream` are the same event. The tree is
the fold of these events (`tts_tui.tree.search_tree`): no display and no recorder keeps state of its own.
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
"""Version of the event format. Every recording names its own, and a reader refuses any other."""

ROOT = 0
"""Id of the root node, which holds the prompt."""

HAND = 1_000_000
"""Group of steps that a person asked for: behind all groups of a strategy."""
WRITTEN = HAND + 1
"""Group of steps that a person wrote."""

By = Literal["strategy", "person"]

Reason = Literal["solved", "unsolved", "budget", "timeout", "interrupted", "failed"]
"""Why a search ended: it ran to its end with or without an answer, tokens or FLOPs ran out, time ran out, someone
stopped it, or the models failed. Whatever the reason, the best answer so far is given."""


def _tag(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


class Event(Struct, frozen=True, tag_field="event", tag=_tag, kw_only=True, omit_defaults=True):
    """Base of all events.

    Attributes:
        t: Seconds since the search began.
    """

    t: float = 0.0


class Origin(Struct, frozen=True):
    """Where a fork comes from.

    Attributes:
        run: The `SearchStarted.run` that it was forked from.
        node: The node there that it goes on from.
        steps: How many steps lead to it. They are the first nodes after the root, copied and free of charge, and the
            node with this id is the root of the fork's own search.
    """

    run: str
    node: int
    steps: Annotated[int, msgspec.Meta(ge=0)]


class SearchStarted(Event, frozen=True):
    """The first event. The root node exists from here on."""

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
    """A recording was taken up again; steps that were being written at that moment are started anew."""

    created: str


class StepStarted(Event, frozen=True):
    """A policy began to write a step.

    Attributes:
        node: Its id: one more than the last one given.
        parent: The node that it continues.
        slot: Which of the parent's continuations this is, from 0. A retry has the same slot and a new node.
        group: Which independent part of the search it belongs to (a DVTS subtree); part of the slot's identity.
        ahead: What of it was written, and counted by `SpeculativeTokens`, before it was asked for.
        by: Who asked for it, or wrote it.
    """

    node: int
    parent: int
    slot: int
    group: int = 0
    ahead: Usage = Usage()
    by: By = "strategy"


class SpeculativeTokens(Event, frozen=True):
    """Tokens were written beyond the end of a step, in case that the search goes on from it.

    Of the root it also tells what reading the prompt has cost for a choice that was not made.

    They are spent, whether it does or not; what of them is used turns up in `StepStarted.ahead`.
    """

    node: int
    usage: Usage


class StepStreamed(Event, frozen=True):
    """Some text of a step that is being written."""

    node: int
    text: str
    usage: Usage = Usage()


class StepFinished(Event, frozen=True):
    """A step is whole.

    Attributes:
        ids: Its exact token ids, separator or end of text included.
        text: What they say.
        finish: How it ended.
        usage: All that it cost; replaces what was streamed.
    """

    node: int
    ids: tuple[TokenId, ...]
    text: str
    finish: Finish
    usage: Usage


class StepFailed(Event, frozen=True):
    """A step could not be written, or was cut off by the end of the search.

    Attributes:
        error: What happened, one sentence.
        retry: Another attempt follows in the same slot.
        usage: Tokens spent on it all the same.
    """

    node: int
    error: str
    retry: bool = False
    usage: Usage = Usage()


class StepMerged(Event, frozen=True):
    """A step says the same as a sibling, which alone is grown on; its tokens still count."""

    node: int
    into: int


class StepScored(Event, frozen=True):
    """The PRM scored a step; `computed` and `cached` are its tokens, `unseen` how many steps it had no room for."""

    node: int
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    computed: Count = 0
    cached: Count = 0
    unseen: Count = 0


class ScoreFailed(Event, frozen=True):
    """Steps stay without a score."""

    nodes: tuple[int, ...]
    error: str
    retry: bool = False


class NodesKept(Event, frozen=True):
    """The strategy goes on with these nodes; or a person restored them, whoever had given them up."""

    nodes: tuple[int, ...]
    why: str
    by: By = "strategy"


class NodesPruned(Event, frozen=True):
    """The strategy gives these nodes up; or a person cut them, and all that stands below."""

    nodes: tuple[int, ...]
    why: str
    by: By = "strategy"


class BranchBegun(Event, frozen=True):
    """The plan's strategy also runs from this node, as a search of its own whose solutions vote too."""

    node: int


class PlanChanged(Event, frozen=True):
    """A person changed the plan. If its strategy must decide anew, all that it had pruned is taken back; cuts stay."""

    plan: Plan


class Considered(Struct, frozen=True):
    """A way to go on, as the controller saw it.

    Attributes:
        plan: Its name: "stop", or strategy and n as in `best-of-n:16`; n counts what is there already.
        accuracy: Expected share of right answers in cases like this one, 0 to 1.
        tokens: Expected further cost, in tokens of the policy; those of the PRM are weighed by its size.
    """

    plan: str
    accuracy: float
    tokens: float


class PlanChosen(Event, frozen=True):
    """The controller looked at what there is, and chose how to go on.

    Attributes:
        samples: Solutions that it had seen.
        pass1: Expected pass@1 of the policy on this problem.
        low, high: Where that lies with 90 % probability.
        levels: Probabilities that the problem is easy, medium and hard for this policy.
        answer: The answer so far, or None.
        sure: Probability that it is right.
        changes: Probability that the best way to go on would make the right answer of a wrong one, or the reverse.
        considered: What there was to choose from, the best first.
        chosen: The chosen one's name; "stop" ends the search.
        strategy: Who goes on now; empty where the search ends.
        n: Its candidates, those included that are there: it may look again before the chosen plan is done.
        basis: What the choice rests on, in words.
        why: The choice, in a sentence.
        root: The node that the strategy runs from.
        usage: What reading the prompt cost, where it was read for this choice.
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
    """A path ended its answer. `answer` is None where none can be read out of it."""

    node: int
    answer: str | None


class AnswersMatched(Event, frozen=True):
    """Two answers, as written, mean the same although their canonical forms differ: their votes count together."""

    left: str
    right: str


class Notice(Event, frozen=True):
    """Something that a person should know and that changes nothing.

    Attributes:
        message: A sentence.
        warning: Something that was asked for is lost. Displays also say it on standard error.
    """

    message: str
    warning: bool = False


class SearchPaused(Event, frozen=True):
    """No new step of a strategy starts until `SearchContinued`."""


class SearchStepped(Event, frozen=True):
    """One step, or one round of steps, was let through a pause."""

    round: bool = False


class SearchContinued(Event, frozen=True):
    """Steps start again."""


class SearchFinished(Event, frozen=True, omit_defaults=False):
    """The last event: the answer, why the search ended, and what it cost.

    Attributes:
        answer: The winner of the vote, or None.
        node: The solution that stands for it.
        reason: Why the search ended.
        detail: The same in a sentence, where there is more to say.
        votes: Every answer, best first.
        nodes: Steps in the tree.
        undecided: Pairs of answers that voted apart because nobody could tell whether they mean the same.
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
    """One line of JSON, without the line feed; a terminal can show it as it is."""
    return escape_json(_encoder.encode(event))


def decode(line: bytes | str) -> AnyEvent:
    """The event of one line.

    Raises:
        RecordCorrupt: The line is not an event of this format.
    """
    try:
        return _decoder.decode(line)
    except MemoryError:
        raise
    except Exception as error:  # values refuse to be made with errors of their own, such as `PlanError`
        raise RecordCorrupt(f"not an event: {error}") from error
