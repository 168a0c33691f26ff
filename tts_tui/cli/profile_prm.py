"""Implementation of `tts-tui profile-prm`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from tts_tui import profiles, registry
from tts_tui.cli import commands
from tts_tui.displays import session
from tts_tui.errors import UsageError
from tts_tui.evaluation.loaded_run import LoadedRun, load
from tts_tui.evaluation.outcomes import Outcome
from tts_tui.evaluation.prm import labelled as judged
from tts_tui.evaluation.prm import processbench
from tts_tui.evaluation.prm.defaults import verdict
from tts_tui.evaluation.prm.metrics import Findings, measure
from tts_tui.evaluation.prm.profile import as_text, as_toml, write
from tts_tui.evaluation.reports.tables import WIDTH, wrapped
from tts_tui.formatting import one_line
from tts_tui.profiles import user
from tts_tui.protocols import ModelInfo, Policy, RewardModel

_TOLD = 200
"""Number of solutions between progress messages."""
_Found = tuple[Findings, ModelInfo, str, Sequence[Outcome]]
"""Metrics, the PRM, a description of the data, and the outcomes whose votes are compared."""


def profile_prm(source: Path, given: Mapping[str, Any]) -> int:
    """Measure a PRM on a run or a file, print the metrics, and write a profile."""
    if given["name"]:
        user.path(given["name"])
    if source.is_dir():
        findings, info, said, outcomes = _of_run(source, given)
    elif not source.exists():
        raise UsageError(
            f"cannot read {source}, which is not there: give the folder of a run of `tts-tui eval`, or a JSONL file of "
            "solutions (`tts-tui profile-prm --help` says what is in it)"
        )
    else:
        findings, info, said, outcomes = _of_file(source, given)
    name = given["name"] or name_of(info)
    target: Path = given["out"] or user.path(name)
    counts = given["out"] is None and name in profiles.names()
    chosen = verdict(name, findings, outcomes, counts=counts)
    origin = f"tts-tui profile-prm, {date.today().isoformat()}: {said}"
    text = as_toml(name, info.name, findings, origin, chosen.defaults)
    write(text, target)
    print(f"{one_line(info.name)}, {one_line(said, 1000)}\n\n{as_text(findings)}\n\n{wrapped(chosen.said, WIDTH)}\n")
    print(f"Written: {one_line(str(target), 1000)}")
    if given["out"] is None:
        print(f"tts-tui profiles show {name} shows it")
    return 0


def name_of(info: ModelInfo) -> str:
    """Return the name of the profile that a PRM uses, or a name derived from the PRM's own."""
    from tts_tui.backends.adapter.reward_model import TITLE

    if info.name == TITLE:
        return "embedded"
    known = info.family.partition(":")[0]
    if known in profiles.prms():
        return known
    made = re.sub(r"[^a-z0-9._-]+", "-", info.name.lower()).strip("-._")
    return made[:60] or "prm"


def _of_run(folder: Path, given: Mapping[str, Any]) -> _Found:
    """Measure the scores recorded in a run, without loading a model."""
    for option in ("prm", "policy", "limit", "problem_column"):
        if commands.suitable(given, option, False) is not None:
            flag = "--" + option.replace("_", "-")
            raise UsageError(f"{folder} is a run, whose scores are used as they are: leave {flag} out")
    (run,) = load([folder])
    plan = judged.scored_plan(run)
    info = run.header.prm
    if info is None:
        raise UsageError(f"the run {folder} has scores, but does not say of which PRM: evaluate it again")
    outcomes = [one for one in run.outcomes[plan].values() if one.solutions]
    solutions = judged.of_outcomes(outcomes)
    labelled = judged.of_recordings(run, plan)
    findings = measure(solutions, labelled, outcomes, "tokens", "" if labelled else _unknown(run, plan))
    data = run.header.dataset
    what = " ".join(filter(None, (data.name, data.split)))
    guided = "" if run.samples(plan) else "; this plan's solutions were already chosen by the PRM"
    said = (
        f"{len(solutions)} solutions of {findings.problems} problems ({what}) by {plan}, policy "
        f"{run.header.policy.name}{guided}"
    )
    return findings, info, said, outcomes


def _unknown(run: LoadedRun, plan: str) -> str:
    """Return why the steps of a run's solutions have no labels."""
    if any(judged.family_problem(item) is not None for item in run.problems.values()):
        return f"no recording of {plan} that can be read is left in {run.folder}: steps are known from these."
    return "there are no step labels: a program labels the steps of problem families alone."


def _of_file(path: Path, given: Mapping[str, Any]) -> _Found:
    """Score solutions whose first errors are known, and measure the scores."""
    solutions = processbench.read(path, given["problem_column"])
    solutions = solutions[: given["limit"]]
    _, spec = commands.specs(given)
    policy = _policy(given)
    prm = _prm(spec, policy, given)
    commands.load_models(given["policy"] if policy is not None else spec, spec if policy is not None else "none")
    scored, info = asyncio.run(_scored(prm, policy, solutions))
    findings = measure(scored, scored, (), "characters")
    wrong = sum(one.error is not None and one.error >= 0 for one in scored)
    left = len(solutions) - len(scored)
    short = f", {left} more are longer than its context" if left else ""
    said = f"{len(scored)} solutions of {findings.problems} problems in {path.name}, {wrong} with an error{short}"
    return findings, info, said, ()


def _policy(given: Mapping[str, Any]) -> Policy | None:
    """Return the policy that the PRM scores with, None unless one is given: most PRMs need only text."""
    spec = given["policy"]
    if spec is None:
        return None
    key = given["api_key"] if commands.is_server(spec) else None
    return registry.policy(spec, **({"api_key": key} if key else {}))


def _prm(spec: str, policy: Policy | None, given: Mapping[str, Any]) -> RewardModel:
    """Build the PRM from the options, ignoring settings meant for other kinds of PRMs."""
    kind = spec.partition(":")[0]
    known = {"tokenizer": ("prm_tokenizer", "sglang"), "api_key": ("api_key", "sglang"), "allow_pickle": ("", "hf")}
    chosen = {}
    for name, (option, of) in known.items():
        if value := commands.suitable(given, option or name, kind == of):
            chosen[name] = value
    made = registry.reward_model(spec, policy, **chosen)
    if made is None:
        raise UsageError("there is no PRM to measure: name one with --prm")
    return made


async def _scored(
    prm: RewardModel, policy: Policy | None, solutions: list[judged.Judged]
) -> tuple[list[judged.Judged], ModelInfo]:
    told = 0

    def tell(done: int) -> None:
        nonlocal told
        if done - told >= _TOLD or done == len(solutions):
            told = done
            session.note(f"{done} of {len(solutions)} solutions are scored")

    try:
        if policy is not None:
            await policy.start()
        await prm.start()
        scored = await processbench.score(prm, policy, solutions, tell)
        if not scored:
            raise UsageError("none of the solutions fits the PRM's context: there is nothing to measure")
        return scored, prm.info
    finally:
        await prm.close()
        if policy is not None:
            await policy.close()
