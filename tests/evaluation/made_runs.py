"""Run folders with made-up outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tts_tui.evaluation.datasets.loading import Item
from tts_tui.evaluation.outcomes import Answered, Outcome, elected
from tts_tui.evaluation.run_folder import Header, Source
from tts_tui.plan import Plan, default_plan
from tts_tui.protocols import ModelInfo
from tts_tui.tree.totals import Flops, PolicyTokens, PrmTokens, Tokens

SCORED = default_plan("best-of-n", n=4, score="last", vote="prm-max")
MAJORITY = default_plan("majority", n=4)

Solution = tuple[str | None, tuple[float, ...]]


def item(number: int, **more: str) -> Item:
    return Item(f"p{number}", f"What is {number} + 1?", str(number + 1), **more)


def outcome(problem: Item, plan: str, solutions: Sequence[Solution], settings: Plan = SCORED, **more) -> Outcome:
    """An outcome of these answers and scores; a prompt of 10 tokens, and 8 sampled and 6 scored a solution."""
    names: list[str] = []
    made = []
    for answer, scores in solutions:
        if answer is not None and answer not in names:
            names.append(answer)
        group = -1 if answer is None else names.index(answer)
        made.append(Answered(answer, group, answer == problem.answer, scores, more.get("size", 8)))
    more.pop("size", None)
    winner = elected(made, settings.score, settings.vote)
    count = len(solutions)
    facts = {
        "answer": None if winner is None else winner.answer,
        "right": winner is not None and winner.right,
        "reason": "unsolved" if winner is None else "solved",
        "detail": "",
        "tokens": Tokens(PolicyTokens(10, 10 * (count - 1), 8 * count), PrmTokens(6 * count, 4 * count)),
        "flops": Flops(100.0 * (10 + 8 * count), 50.0 * 6 * count),
        "seconds": 2.0,
        **more,
    }
    return Outcome(problem=problem.id, plan=plan, solutions=tuple(made), **facts)


def write(
    folder: Path,
    plans: Mapping[str, Plan],
    items: Sequence[Item],
    outcomes: Sequence[Outcome],
    policy: str = "a policy",
    prm: str | None = "a PRM",
    **data,
) -> Path:
    """Writes a run folder."""
    folder.mkdir(parents=True)
    header = Header(
        version="0",
        created="2026-01-01",
        dataset=Source("made", "made.jsonl", count=len(items), **data),
        policy=ModelInfo(policy, 100, 1000),
        prm=None if prm is None else ModelInfo(prm, 50, 1000),
        policy_spec="embedded",
        prm_spec="embedded",
        plans=dict(plans),
    )
    (folder / "run.json").write_bytes(msgspec.json.encode(header))
    for name, lines in (("problems", items), ("outcomes", outcomes)):
        (folder / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return folder
