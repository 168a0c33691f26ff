"""Few-shot examples for the embedded policy: a small shipped set, and the choice of the three most similar ones.

A 135M-parameter model follows the format, and solves simple problems, when it is shown three solved problems *of the
same kind* (`docs/embedded-prm.md`). Kinds are distinguished by similarity: idf-weighted n-grams of words and
characters, with every digit replaced by 0, so that `7 + 8 - 6` is similar to `2 + 9 - 4` but not to `7 * 8`.

Examples of the most similar kind are chosen first, in their canonical order: problems of one kind get the same three
examples, so that a KV cache holds them once.

This module is pure Python and cheap to import.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from msgspec import Struct

SYSTEM = (
    "Solve the problem step by step. Write every step as a paragraph of its own, with a blank line "
    "after it. End with: The answer is \\boxed{...}."
)
COUNT = 3
_ASKING = frozenset({"what", "is", "compute", "calculate", "evaluate", "find", "solve"})
_WORDS = re.compile(r"0+|[a-z]+|\\[a-z]+|[^\sa-z0]")


class Shot(Struct, frozen=True):
    """A solved problem: its kind, its question, and its solution in the format that the policy should follow."""

    kind: str
    question: str
    solution: str


@cache
def few_shot_examples() -> tuple[Shot, ...]:
    """Return the shipped examples in their canonical order."""
    text = (resources.files("tts_tui") / "data" / "shots.json").read_text(encoding="utf-8")
    return tuple(Shot(**shot) for shot in json.loads(text)["shots"])


def _normal(text: str) -> str:
    return " ".join(text.lower().split())


def _grams(text: str) -> Counter[str]:
    """Count word 1- to 3-grams and character 3- to 4-grams of the text, with digits masked."""
    masked = re.sub(r"\d", "0", _normal(text)[:2000])
    found = _WORDS.findall(masked)
    if not any(word.isalpha() and word not in _ASKING for word in found):
        # A bare expression: "Compute 0 + 0." asks the same question as "What is 0 + 0?".
        found = [word for word in found if word not in _ASKING and word not in "?.:"]
    words = ["^", *found, "$"]
    grams = Counter(
        " ".join(words[start : start + size]) for size in (1, 2, 3) for start in range(len(words) - size + 1)
    )
    squeezed = "".join(words)
    grams.update("#" + squeezed[start : start + size] for size in (3, 4) for start in range(len(squeezed) - size + 1))
    return grams


@cache
def _index() -> tuple[dict[str, float], tuple[dict[str, float], ...]]:
    """Return every n-gram's idf over kinds (not examples, whose number per kind is arbitrary), and the unit vectors."""
    grams = [_grams(shot.question) for shot in few_shot_examples()]
    kinds: dict[str, set[str]] = {}
    for shot, found in zip(few_shot_examples(), grams, strict=True):
        for gram in found:
            kinds.setdefault(gram, set()).add(shot.kind)
    total = len({shot.kind for shot in few_shot_examples()})
    idf = {gram: math.log((1 + total) / (1 + len(having))) + 0.1 for gram, having in kinds.items()}
    return idf, tuple(_unit(found, idf) for found in grams)


def _unit(grams: Mapping[str, int], idf: Mapping[str, float]) -> dict[str, float]:
    """Return the tf-idf vector of length 1; n-grams that no example contains are weighted like the rarest ones."""
    rare = max(idf.values(), default=1.0)
    vector = {gram: (1.0 + math.log(count)) * idf.get(gram, rare) for gram, count in grams.items()}
    length = math.sqrt(sum(weight * weight for weight in vector.values())) or 1.0
    return {gram: weight / length for gram, weight in vector.items()}


def similarity(question: str) -> list[float]:
    """Return the similarity in [0, 1] of `question` to every shipped example, in their order."""
    idf, vectors = _index()
    asked = _unit(_grams(question), idf)
    return [sum(weight * asked[gram] for gram, weight in vector.items() if gram in asked) for vector in vectors]


def choose(question: str, count: int = COUNT) -> tuple[Shot, ...]:
    """Return the `count` most similar examples, by kind; never one that asks exactly `question`.

    The most similar kind comes last, next to the question, where it has the most influence.
    """
    asked = _normal(question)
    best: dict[str, float] = {}
    for shot, score in zip(few_shot_examples(), similarity(question), strict=True):
        best[shot.kind] = max(best.get(shot.kind, 0.0), round(score, 6))
    ranked = sorted(
        (number for number, shot in enumerate(few_shot_examples()) if _normal(shot.question) != asked),
        key=lambda number: (-best[few_shot_examples()[number].kind], number),
    )[:count]
    ranked.sort(key=lambda number: (best[few_shot_examples()[number].kind], number))
    return tuple(few_shot_examples()[number] for number in ranked)


def messages(question: str, chosen: Sequence[Shot] | None = None) -> list[dict[str, str]]:
    """Return the chat messages for the embedded policy: system prompt, three solved problems, `question`."""
    chat = [{"role": "system", "content": SYSTEM}]
    for shot in choose(question) if chosen is None else chosen:
        chat.append({"role": "user", "content": shot.question})
        chat.append({"role": "assistant", "content": shot.solution})
    chat.append({"role": "user", "content": question})
    return chat
