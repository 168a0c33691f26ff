"""Chat messages per policy family, as in the paper's code (its `evaluate.py`; arXiv 2502.06703, appendix A)."""

from __future__ import annotations

Message = dict[str, str]

_LLAMA3 = """\
Solve the following math problem efficiently and clearly:

- For simple problems (2 steps or fewer):
Provide a concise solution with minimal explanation.

- For complex problems (3 steps or more):
Use this step-by-step format:

## Step 1: [Concise description]
[Brief explanation and calculations]

## Step 2: [Concise description]
[Brief explanation and calculations]

...

Regardless of the approach, always conclude with:

Therefore, the final answer is: $\\boxed{answer}$. I hope it is correct.

Where [answer] is just the final number or expression that solves the problem."""

_REASON = "Please reason step by step, and put your final answer within \\boxed{}."

FAMILIES: dict[str, str] = {"llama3": _LLAMA3, "qwen": _REASON, "r1-distill": _REASON, "default": _REASON}
"""Instruction per family. R1 distillations take it in the user's turn, as they were trained without a system prompt."""


def family_of(name: str) -> str:
    """Return the prompt family of a model, by its name or `model_type`."""
    low = name.lower()
    if "r1-distill" in low or "r1_distill" in low:
        return "r1-distill"
    if "llama-3" in low or "llama3" in low:
        return "llama3"
    return "qwen" if "qwen" in low else "default"


def messages(problem: str, family: str = "default") -> list[Message]:
    """Return the chat that asks a policy of `family` to solve `problem`."""
    instruction = FAMILIES[family]
    if family == "r1-distill":
        return [{"role": "user", "content": f"{problem}\n\n{instruction}"}]
    return [{"role": "system", "content": instruction}, {"role": "user", "content": problem}]
