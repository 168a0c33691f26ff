"""Problems of one's own, from a file: one JSON object a line, with a problem and its answer."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from tts_tui.answers import canonical
from tts_tui.errors import UsageError
from tts_tui.evaluation.families import Problem, Split

_QUESTION, _ANSWER = ("problem", "question"), ("answer", "expected_answer")


def read_problems(path: Path) -> list[Problem]:
    """The distinct problems of a file; three of four are for training, the others for validation, by their texts.

    Raises:
        UsageError: It cannot be read, a line is no problem with an answer, or there are too few.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not in UTF-8'}") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            question, answer = _one(line, f"line {number} of {path}")
            found.setdefault(question, answer)
    counts: Counter[Split] = Counter()
    problems = []
    for question, answer in found.items():
        split: Split = "validation" if hashlib.sha256(question.encode()).digest()[0] % 4 == 0 else "train"
        problems.append(Problem(path.stem, split, counts[split], question, answer, ()))
        counts[split] += 1
    if min(counts["train"], counts["validation"]) < 2:
        raise UsageError(f"{path} has too few problems to train and to validate on: {len(found)}; give 20 or more")
    return problems


def _one(line: str, where: str) -> tuple[str, str]:
    try:
        stored: Any = json.loads(line)
    except ValueError:
        raise UsageError(f"{where} is no JSON: write one object a line, with a problem and an answer") from None
    if not isinstance(stored, dict):
        raise UsageError(f"{where} is no object: write one a line, with a problem and an answer")
    question = next((stored[key] for key in _QUESTION if isinstance(stored.get(key), str)), "").strip()
    answer = next((stored[key] for key in _ANSWER if isinstance(stored.get(key), str | int | float)), None)
    if not question:
        raise UsageError(f'{where} has no problem: its key is "problem" or "question"')
    given = "" if answer is None else str(answer).rpartition("####")[2].strip()  # as GSM8K writes it: a solution first
    if not given:
        raise UsageError(f'{where} has no answer: a PRM is trained on problems with an "answer"')
    if not canonical(given):
        raise UsageError(f"{where} has an answer that says nothing: {given[:40]!r}")
    return question, given
