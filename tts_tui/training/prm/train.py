"""Training of a PRM from scratch: samples a policy, labels its steps, trains an adapter, and fits scores to its ratios.

All intermediate results are kept in a working folder, so that the same call resumes where an interrupted one stopped.
The split `test` of the problem families is never used.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct

from tts_tui.backends.adapter import file
from tts_tui.backends.adapter.file import Adapter, AdapterHead, Shape
from tts_tui.backends.adapter.lora import adapted, fingerprint
from tts_tui.backends.adapter.text import AdapterText
from tts_tui.backends.local import download
from tts_tui.backends.local.embedded import EmbeddedPolicy
from tts_tui.backends.local.policy import LocalPolicy
from tts_tui.concurrency import concurrently
from tts_tui.errors import UnknownName, UsageError
from tts_tui.evaluation.datasets.data_files import BY_NAME, Columns
from tts_tui.evaluation.datasets.families import FAMILIES, TRAINED, Problem, problems
from tts_tui.evaluation.own import read_problems
from tts_tui.evaluation.prm.step_labels import roll_out, step_holds
from tts_tui.evaluation.prm.voting_report import choose, report
from tts_tui.evaluation.samples import SampleCache, Sampled, SamplingSettings, sample_all
from tts_tui.formatting import one_line
from tts_tui.training.prm.fit import Fit, FitProgress, Recipe, vocabulary
from tts_tui.training.prm.score_fit import Read, fit, read, scored
from tts_tui.training.prm.texts import ANSWERS, OWN, STEPS_FIRST, Mixture, TextSampler

Tell = Callable[[str], None]
_LOOKED_AT = 6000
"""Number of texts whose tokens form the adapter's vocabulary."""
_LONGEST, _LONGEST_OWN = 160, 1024
"""Default token limits of a solution: for problems of a family, and for the user's own problems."""
_EVERY = 10.0
"""Seconds between two progress messages."""


class TrainConfig(Struct, frozen=True):
    """The configuration of a training.

    Attributes:
        out: The adapter's file; figures are written next to it (.json).
        work_dir: Folder of intermediate results, which are kept between calls.
        policy: Spec of the policy: embedded, hf:PATH or hf:ORG/NAME.
        families: Names of problem families; if empty, all that may be trained on.
        own: A file of problems to use instead of families.
        columns: Columns of that file, if it is not clear from their names which hold problem and answer.
        problems: Number of problems per family that are sampled to fit scores; two thirds as many serve for validation.
        samples: Number of solutions per problem; twice as many for validation problems.
        rollouts: Number of continuations of each beginning that cannot be judged by program.
        max_solution_tokens: Maximum number of tokens in a solution.
        first_layer: Index of the first adapted layer; by default the one after the first quarter.
        rank: Rank of the adapter.
        recipe: Hyperparameters of the training.
        threads: Number of CPU threads.
    """

    out: Path
    work_dir: Path
    policy: str = "embedded"
    families: tuple[str, ...] = ()
    own: Path | None = None
    columns: Columns = BY_NAME
    problems: int = 24
    samples: int = 8
    rollouts: int = 2
    max_solution_tokens: int | None = None
    first_layer: int | None = None
    rank: int = 16
    recipe: Recipe = Recipe()
    threads: int | None = None


def check(wish: TrainConfig) -> None:
    """Check, before anything is loaded, that the configuration can be trained.

    Raises:
        UnknownName: There is no such family.
        UsageError: The policy does not run in this process, a family is reserved for tests, problems lack answers, or
            an output path is not writable.
    """
    kind, _, rest = wish.policy.partition(":")
    if wish.policy != download.EMBEDDED.name and kind != "hf":
        raise UsageError(f"a PRM is trained on a model in this process, not on {wish.policy!r}: embedded or hf:PATH")
    if kind == "hf" and not rest:
        raise UsageError(f"{wish.policy!r} names no model: write hf:PATH or hf:ORG/NAME")
    for name in wish.families:
        if name not in FAMILIES:
            raise UnknownName("problem family", name, FAMILIES)
        if not FAMILIES[name].trained:
            raise UsageError(f"the family {name} is only tested on: `tts-tui families` says which are trained on")
    if wish.own is not None:
        if wish.families:
            raise UsageError("problems are given twice: with --families and with --problems; give one of them")
        read_problems(wish.own, wish.columns)
    else:
        wish.columns.refuse("problem families")
    if wish.out.is_dir() or wish.out.suffix != ".safetensors":
        raise UsageError(f"the PRM is written to a file that ends with .safetensors, not to {wish.out}")
    _check_folder("--out", wish.out.parent)
    _check_folder("--work-dir", wish.work_dir)


def _check_folder(option: str, folder: Path) -> None:
    there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    if not there.is_dir():
        raise UsageError(f"{option} cannot be written: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{option} cannot be written: the folder {there} is not writable")


def train(wish: TrainConfig, tell: Tell) -> dict[str, Any]:
    """Train a PRM, and write the adapter and its figures.

    Args:
        wish: The configuration.
        tell: Called with a line of text about the current work and the time it may take.

    Returns:
        The figures on validation problems.
    """
    check(wish)
    # Set in this thread, as otherwise the number last chosen by the policy's engine would apply here too.
    torch.set_num_threads(wish.threads or torch.get_num_threads())
    began = time.monotonic()
    network, sets = asyncio.run(_sampled(wish, tell))
    gc.collect()  # the policy's KV cache, most of a GPU, is held by a reference cycle
    tokenizer, model = network
    layout = AdapterText(tokenizer)
    families = () if wish.own else wish.families or TRAINED
    mixtures = _mixtures(bool(families))
    own: list[Sampled] = []
    if not families:  # scores cannot be fitted on memorised solutions: half are held out
        own, sets["train"] = sets["train"][::2], sets["train"][1::2]
    if not families and not any(any(one.right) for one in own):
        raise UsageError("the policy solves none of the problems: there is no right solution to learn from")

    def writer() -> TextSampler:
        return TextSampler(families, own, mixtures, wish.recipe.seed)

    texts = list(islice(writer(), _LOOKED_AT))
    choices = vocabulary(texts, layout)
    shape = _shape(wish, model)
    of = hashlib.sha256(msgspec.json.encode((fingerprint(model), texts))).hexdigest()
    fitted = Fit(model, layout, shape, wish.recipe, choices, wish.work_dir / "training.pt", of)
    fitted.run(iter(writer()), _paced(tell))
    reads = _read(fitted.model.eval(), layout, choices, sets, tell)
    about = _about(wish, shape, mixtures, sets)
    head = AdapterHead(shape, wish.policy, fingerprint(model), *fit(reads["train"]), about=json.dumps(about))
    score, vote, table = choose(scored(head, reads["validation"]))
    head = msgspec.structs.replace(head, defaults={"score": score, "vote": vote})
    figures = {
        **about,
        "defaults": head.defaults,
        "judgements": {"step": msgspec.structs.asdict(head.step), "answer": msgspec.structs.asdict(head.answer)},
        "validation accuracy, half of the solutions": {name: round(value, 3) for name, value in table.items()},
        "validation": report(scored(head, reads["validation"]), score),
    }
    file.save(Adapter(head, choices, fitted.tensors), wish.out)
    wish.out.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    tell(f"done in {(time.monotonic() - began) / 60:.0f} min: {wish.out}, {wish.out.stat().st_size / 1e6:.1f} MB")
    return figures


def _shape(wish: TrainConfig, model: Any) -> Shape:
    depth = model.config.get_text_config().num_hidden_layers
    if wish.first_layer is not None and wish.first_layer >= depth:
        raise UsageError(
            f"there is no layer {wish.first_layer} to adapt from: {wish.policy} has layers 0 to {depth - 1}"
        )
    return Shape(depth, min(depth - 1, depth // 4 + 1) if wish.first_layer is None else wish.first_layer, wish.rank)


def _mixtures(families: bool) -> tuple[tuple[Mixture, int], ...]:
    """Return a mixture for steps and then one for answers; without families, only the policy's own solutions."""
    return ((Mixture(), STEPS_FIRST), (ANSWERS, 0)) if families else ((OWN, 0),)


# --- samples ----------------------------------------------------------------------------------------------------------


def chosen(wish: TrainConfig) -> dict[str, list[tuple[Problem, int]]]:
    """Return the problems to sample by split, each with its number of solutions."""
    if wish.own is not None:
        found = read_problems(wish.own, wish.columns)
        return {
            "train": [(one, wish.samples) for one in found if one.split == "train"],
            "validation": [(one, 2 * wish.samples) for one in found if one.split == "validation"],
        }
    names = wish.families or TRAINED
    return {
        "train": [(one, wish.samples) for name in names for one in problems(name, "train", wish.problems)],
        "validation": [
            (one, 2 * wish.samples) for name in names for one in problems(name, "validation", wish.problems * 2 // 3)
        ],
    }


async def _sampled(wish: TrainConfig, tell: Tell) -> tuple[tuple[Any, Any], dict[str, list[Sampled]]]:
    """Return the policy's tokenizer and network, and the samples with their rollouts."""
    options: dict[str, Any] = {"dtype": "float32", "threads": wish.threads}
    policy = EmbeddedPolicy(**options) if wish.policy == download.EMBEDDED.name else LocalPolicy(wish.policy, **options)
    tell(f"loading {wish.policy}")
    await policy.start()
    try:
        network = policy.network
        # Fail on unsupported models before hours of sampling.
        adapted(network[1], _shape(wish, network[1]))
        AdapterText(network[0])
        settings = SamplingSettings(fingerprint(network[1]), tokens=_longest(wish))
        cache = SampleCache(wish.work_dir / "samples", settings)
        wanted = chosen(wish)
        if wish.own is not None:
            await _fits(policy, [one for pairs in wanted.values() for one, _ in pairs])
        await sample_all(policy, [*wanted["train"], *wanted["validation"]], cache, done=_counted(wanted, tell))
        sets = {split: [cache.load(*pair) for pair in pairs] for split, pairs in wanted.items()}
        whole = {split: [one for one in own if one is not None] for split, own in sets.items()}
        whole["train"] = await _rolled(policy, whole["train"], cache, wish.rollouts, tell)
    finally:
        await policy.close()
    return network, whole


def _longest(wish: TrainConfig) -> int:
    return wish.max_solution_tokens or (_LONGEST_OWN if wish.own else _LONGEST)


async def _fits(policy: LocalPolicy, asked: Sequence[Problem]) -> None:
    """Raise UsageError if a problem leaves no room for a solution in the policy's context."""
    for one in asked:
        found, context = len((await policy.prompt(one.question)).ids), policy.info.context
        if found >= context:
            raise UsageError(
                f"a problem has {found} tokens and the context of {policy.info.name} is {context}: take it out of the "
                f"file ({one_line(one.question, 60)})"
            )


async def _rolled(
    policy: LocalPolicy, sampled: Sequence[Sampled], cache: SampleCache, count: int, tell: Tell
) -> list[Sampled]:
    """Return the samples, with rollouts added where they are missing."""
    permits, began, last, done = asyncio.Semaphore(8), time.monotonic(), 0.0, 0

    async def one(own: Sampled) -> Sampled:
        nonlocal done, last
        async with permits:
            rolled = own
            if any(rollouts.total != count for rollouts in own.rollouts):
                rolled = msgspec.structs.replace(own, rollouts=())  # from a call with another number of rollouts
            if count and not rolled.rollouts:
                rolled = await roll_out(policy, rolled, cache.settings, count)
                if rolled.rollouts:
                    cache.save(rolled)
        done += 1
        if (now := time.monotonic()) - last > _EVERY:
            last = now
            tell(f"rollouts: {done} of {len(sampled)} problems, {_left(began, done, len(sampled))}")
        return rolled

    return await concurrently(one(own) for own in sampled)


def _counted(wanted: dict[str, list[tuple[Problem, int]]], tell: Tell) -> Callable[[Sampled, bool], None]:
    total, began, last, done, fresh = sum(map(len, wanted.values())), time.monotonic(), 0.0, 0, 0

    def count(sampled: Sampled, cached: bool) -> None:
        nonlocal done, fresh, last
        done, fresh = done + 1, fresh + (not cached)
        if (now := time.monotonic()) - last > _EVERY or done == total:
            last = now
            tell(f"samples: {done} of {total} problems, {_left(began, fresh, fresh + total - done)}")

    return count


def _left(began: float, done: float, total: float) -> str:
    seconds = (time.monotonic() - began) / (done or 1) * (total - done)
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"


def _paced(tell: Tell) -> Callable[[FitProgress], None]:
    last = 0.0

    def told(progress: FitProgress) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > _EVERY or progress.tokens >= progress.total:
            last = now
            tell(
                f"training: {progress.tokens:,} of {progress.total:,} tokens, loss {progress.loss:.3f}, "
                f"{progress.speed:.0f} tokens/s, about {progress.left / 60:.0f} min left"
            )

    return told


def _read(
    model: Any, layout: AdapterText, choices: Any, sets: dict[str, list[Sampled]], tell: Tell
) -> dict[str, list[Read]]:
    def told(split: str) -> Callable[[float], None]:
        began = last = time.monotonic()

        def tell_share(share: float) -> None:
            nonlocal last
            if (now := time.monotonic()) - last > _EVERY or share == 1:
                last = now
                tell(f"reading the {split} samples: {share:.0%}, {_left(began, share, 1.0)}")

        return tell_share

    return {split: read(model, layout, choices, own, told(split)) for split, own in sets.items()}


# --- figures ----------------------------------------------------------------------------------------------------------


def command(wish: TrainConfig) -> str:
    """Return the command that runs this training."""
    plain, words = TrainConfig(wish.out, wish.work_dir), ["tts-tui train-prm"]
    if wish.policy != plain.policy:
        words.append(f"--policy {wish.policy}")
    if wish.families:
        words.append(f"--families {','.join(wish.families)}")
    if wish.own:
        words.append(f"--problems {wish.own.name}")
    for option, column in (("problem", wish.columns.problem), ("answer", wish.columns.answer)):
        if column is not None:
            words.append(f"--{option}-column {shlex.quote(column)}")
    pairs: list[tuple[Any, Any, str]] = [
        (wish, plain, name) for name in ("samples", "rollouts", "max_solution_tokens", "first_layer", "rank")
    ]
    pairs += [(wish.recipe, plain.recipe, name) for name in ("tokens", "learning_rate", "seed")]
    changed = [(name, getattr(own, name)) for own, usual, name in pairs if getattr(own, name) != getattr(usual, name)]
    words += [f"--{name.replace('_', '-')} {value}" for name, value in changed]
    return " ".join(words)


def _about(
    wish: TrainConfig, shape: Shape, mixtures: Sequence[tuple[Mixture, int]], sets: dict[str, list[Sampled]]
) -> dict[str, Any]:
    return {
        "command": command(wish),
        "made with": {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]},
        "adapter": msgspec.structs.asdict(shape),
        "recipe": msgspec.structs.asdict(wish.recipe),
        "texts": [{"texts": count, **msgspec.structs.asdict(mixture)} for mixture, count in mixtures],
        "samples": {split: _sizes(own) for split, own in sets.items()},
    }


def _sizes(sampled: Sequence[Sampled]) -> dict[str, int]:
    return {
        "problems": len(sampled),
        "solutions": sum(len(one.solutions) for one in sampled),
        "right": sum(sum(one.right) for one in sampled),
        "right by a wrong step": sum(_by_a_wrong_step(one) for one in sampled),
        "rollouts": sum(rolled.total for one in sampled for rolled in one.rollouts),
    }


def _by_a_wrong_step(sampled: Sampled) -> int:
    """Return the number of solutions with a right answer and a step whose arithmetic does not hold."""
    pairs = zip(sampled.solutions, sampled.right, strict=True)
    return sum(right and not all(step_holds(step, sampled.problem) for step in own.steps) for own, right in pairs)
