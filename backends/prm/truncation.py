"""Truncation of paths that are longer than a PRM's context, to the question and the last steps that fit."""

from __future__ import annotations

from collections.abc import Sequence

from tts_tui.backends.prm.layouts import Ids, Layout
from tts_tui.errors import ContextExceeded


def fitting(layout: Layout, question: str, steps: Sequence[str], context: int) -> tuple[Ids, int]:
    """Return ids that score the last step and fit the context.

    The steps to leave out are determined as the path grows, and whenever the context is full, half of it is freed. So
    a score never depends on later steps, and most of the following steps find their prefix already computed.

    Args:
        layout: The layout of the PRM's input.
        question: The question as the user typed it.
        steps: The steps of the path, at least one.
        context: The maximum number of ids.

    Returns:
        The ids, and the number of steps that they do not include, or include only partly.

    Raises:
        ContextExceeded: The question alone does not fit.
    """
    ids = layout.ids(question, steps)
    if len(ids) <= context:
        return ids, 0
    first = 0
    for end in range(1, len(steps) + 1):
        if len(layout.ids(question, steps[:end], first)) > context:
            while first < end - 1 and len(layout.ids(question, steps[:end], first)) > context // 2:
                first += 1
    ids = layout.ids(question, steps, first)
    if len(ids) <= context:
        return ids, first
    return _end_of_step(layout, question, steps, context), len(steps)


def _end_of_step(layout: Layout, question: str, steps: Sequence[str], context: int) -> Ids:
    """Return ids with as much of the end of the last step as fits, where that step alone is too long."""
    first, step = len(steps) - 1, steps[-1]
    before = list(steps[:-1])
    least, most = 0, len(step)  # numbers of characters; `least` are known to fit
    best = layout.ids(question, [*before, ""], first)
    while len(best) <= context and most - least > 1:
        middle = (least + most) // 2
        ids = layout.ids(question, [*before, step[len(step) - middle :]], first)
        if len(ids) <= context:
            least, best = middle, ids
        else:
            most = middle
    if len(best) > context or (least == 0 and step.strip()):
        raise ContextExceeded(
            f"the question leaves no room for a step in the reward model's context of {context} tokens: use a shorter "
            "problem, or a reward model with a longer context"
        )
    return best
