"""The summary of a storm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.faults.checks import BARS
from benchmarks.faults.kinds import KINDS

if TYPE_CHECKING:
    from benchmarks.faults.storm import Outcome


def show(outcomes: Sequence[Outcome], seconds: float, strays: Sequence[str], again: str) -> int:
    """Print the summary, and return the number of findings."""
    faults: Counter[str] = sum((outcome.faults for outcome in outcomes), Counter())
    ends: Counter[str] = sum((outcome.ends for outcome in outcomes), Counter())
    searches = sum(len(outcome.case.searches) for outcome in outcomes)
    print(f"\n{searches} searches in {len(outcomes)} cases, {faults.total()} faults, {seconds:.0f} s")
    print(f"ended: {', '.join(f'{name} {count}' for name, count in ends.most_common())}")
    print("\nfaults by kind")
    names = sorted(KINDS)
    for place in range(0, len(names), 3):
        print("  " + "".join(f"{name:<26}{faults[name]:>5}   " for name in names[place : place + 3]).rstrip())
    found = [(outcome, finding) for outcome in outcomes for finding in outcome.findings]
    print(f"\n{'bar':<16}{'found':>7}  (each is to be 0)")
    for bar in BARS:
        print(f"{bar:<16}{sum(finding.bar == bar for _, finding in found):>7}")
    print(f"{'stray errors':<16}{len(strays):>7}")
    for stray in dict.fromkeys(strays):
        print(f"  {stray[:300]}")
    bad = [outcome for outcome in outcomes if outcome.findings]
    if bad:
        print("\nto repeat a case alone")
    for outcome in bad:
        print(f"  {again} --case {outcome.case.number}")
    return len(found) + len(strays)


def line(outcome: Outcome) -> str:
    """Describe a case that has findings."""
    case = outcome.case
    plans = ", ".join(planned.plan.strategy for planned in case.searches)
    head = f"{case.name}: {case.policy}, {case.prm or 'PRM in this process'}; {plans}; {', '.join(case.kinds)}"
    found = dict.fromkeys((finding.bar, finding.what) for finding in outcome.findings)
    return "\n".join([head, *(f"  {bar}: {what}" for bar, what in found)])
