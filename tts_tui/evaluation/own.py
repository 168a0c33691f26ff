"""User-provided problems from a file with one JSON object per line, each with a problem and its answer."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from tts_tui.answers.canonical import canonical
from tts_tui.errors import UsageError
from tts_tui.evaluation.datasets.data_files import BY_NAME, Columns, DataFile, looks_like_solution
from tts_tui.evaluation.datasets.families import Problem, Split


def read_problems(path: Path, columns: Columns = BY_NAME) -> list[Problem]:
    """Read the distinct problems of a file; a hash of the text assigns 3/4 to training and the others to validation.

    Raises:
        UsageError: The file cannot be read, a line is not a problem with an answer, the column of the problem or the
            answer is ambiguous, or there are too few problems.
    """
    found: dict[str, str] = {}
    file = DataFile(path, columns)
    for where, item in file:
        if not item.problem:
            raise UsageError(f"{where} has a problem without text: leave it out")
        if not item.answer:
            raise file.why_no_answer() or UsageError(f"{where} has no answer: a PRM is trained on problems with one")
        if looks_like_solution(item.answer):
            raise UsageError(
                f"{where} has a whole solution for an answer: put the answer behind ####, or choose another column "
                "with --answer-column"
            )
        if not canonical(item.answer):
            raise UsageError(f"{where} has an answer that says nothing: {item.answer[:40]!r}")
        found.setdefault(item.problem, item.answer)
    counts: Counter[Split] = Counter()
    problems = []
    for question, answer in found.items():
        split: Split = "validation" if hashlib.sha256(question.encode()).digest()[0] % 4 == 0 else "train"
        problems.append(Problem(path.stem, split, counts[split], question, answer, ()))
        counts[split] += 1
    if min(counts["train"], counts["validation"]) < 2:
        raise UsageError(f"{path} has too few problems to train and to validate on: {len(found)}; give 20 or more")
    return problems
