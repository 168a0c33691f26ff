"""Trains the embedded PRM's head, from nothing to the shipped files.

::

    python -m tts_tui.evaluation.train_prm --out tts_tui/data/embedded_prm.safetensors

It samples the embedded policy on the problem families (kept on disk, resumed where it was interrupted), labels every
step by program, trains small networks on the policy's states, and chooses score and vote on the validation split. The
test split is only looked at in the end, for the figures that it writes beside the weights (`.json`).
"""

from __future__ import annotations

import asyncio
import json
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from msgspec import Struct

from tts_tui.backends import pull
from tts_tui.backends.embedded import CAPTURE, EmbeddedPolicy
from tts_tui.backends.embedded_prm import CLIP, WINDOW, Head, save_head, shipped
from tts_tui.evaluation.families import FAMILIES, TRAINED, Problem, problems
from tts_tui.evaluation.prm_report import Scored, auc_within, choose, report
from tts_tui.evaluation.samples import MAX_TOKENS, SAMPLING, SampleCache, Sampled, sample_all, step_labels


class Training(Struct, frozen=True):
    """Settings of the training.

    Attributes:
        hidden: Hidden units of each network.
        networks: Networks whose logits are averaged; together they are one wider network, which is what is saved.
        epochs: Most passes over the data.
        patience: Passes without improvement on validation after which a network stops.
        rate: Learning rate.
        decay: Weight decay.
        dropout: Share of inputs and hidden units left out while training.
    """

    hidden: int = 32
    networks: int = 4
    epochs: int = 60
    patience: int = 12
    rate: float = 1e-3
    decay: float = 1e-2
    dropout: float = 0.3


def train(train_set: Sequence[Sampled], validation: Sequence[Sampled], settings: Training, seed: int) -> Head:
    """A head for `train_set`, stopped early on `validation`."""
    import torch

    states, labels, weights = _examples(train_set)
    mean = states.mean(0)
    scale = states.std(0) + 1e-3

    def scaled(problem: Sampled) -> Any:
        own = np.concatenate(problem.states).astype(np.float32)
        return torch.from_numpy(np.clip((own - mean) / scale, -CLIP, CLIP))

    x = torch.from_numpy(np.clip((states - mean) / scale, -CLIP, CLIP))
    target, weight = torch.from_numpy(labels), torch.from_numpy(weights)
    unseen = [(problem, tuple(problem.right), scaled(problem)) for problem in validation]
    networks = []
    for number in range(settings.networks):
        torch.manual_seed(1000 * seed + number)
        net = _network(torch, x.shape[1], settings)
        networks.append(_fit(torch, net, (x, target, weight), lambda n: _quality(torch, n, unseen), settings))
    first = [net[1] for net in networks]
    last = [net[4] for net in networks]
    stacked = {
        "w1": torch.cat([layer.weight for layer in first]).T,
        "b1": torch.cat([layer.bias for layer in first]),
        "w2": torch.cat([layer.weight[0] for layer in last]) / len(last),
        "b2": torch.stack([layer.bias for layer in last]).mean(0),
    }
    arrays = {name: tensor.detach().numpy().astype(np.float32) for name, tensor in stacked.items()}
    return Head(CAPTURE, pull.fingerprint(pull.model_path()), mean, scale, **arrays)


def _network(torch: Any, features: int, settings: Training) -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Dropout(settings.dropout),
        nn.Linear(features, settings.hidden),
        nn.GELU(approximate="tanh"),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.hidden, 1),
    )


def _examples(sampled: Sequence[Sampled]) -> tuple[Any, Any, Any]:
    """States `[steps, features]`, labels and weights `[steps]`; every family and label weighs the same."""
    states, labels, groups = [], [], []
    for problem in sampled:
        for own, flags in zip(problem.states, step_labels(problem), strict=True):
            states.append(own)
            labels += flags
            groups += [(problem.problem.family, flag) for flag in flags]
    sizes = {group: groups.count(group) for group in set(groups)}
    # A family's rare label (such as a wrong step in 1-digit sums) must not weigh more than it can carry.
    weights = np.array([1.0 / max(sizes[group], 60) for group in groups], dtype=np.float32)
    return np.concatenate(states).astype(np.float32), np.array(labels, dtype=np.float32), weights / weights.mean()


def _fit(torch: Any, net: Any, data: tuple[Any, Any, Any], quality: Any, settings: Training) -> Any:
    """Trains one network; returns it as it was when validation liked it best."""
    x, target, weight = data
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.rate, weight_decay=settings.decay)
    best, kept, since = -1.0, {name: value.clone() for name, value in net.state_dict().items()}, 0
    for _ in range(settings.epochs):
        net.train()
        for batch in torch.randperm(len(x)).split(256):
            logits = net(x[batch])[:, 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target[batch], weight[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        reached = quality(net)
        since += 1
        if reached > best:
            best, since = reached, 0
            kept = {name: value.clone() for name, value in net.state_dict().items()}
        if since >= settings.patience:
            break
    net.load_state_dict(kept)
    return net


def _quality(torch: Any, net: Any, validation: Sequence[tuple[Sampled, tuple[bool, ...], Any]]) -> float:
    """AUC within validation problems, averaged over two ways to score a solution."""
    net.eval()
    with torch.inference_mode():
        scored = [
            Scored(problem, _cut(torch.sigmoid(net(states)[:, 0]).tolist(), problem), right)
            for problem, right, states in validation
        ]
    return (auc_within(scored, "prod")[0] + auc_within(scored, "min")[0]) / 2


def _cut(flat: Sequence[float], problem: Sampled) -> tuple[tuple[float, ...], ...]:
    values = iter(flat)
    return tuple(tuple(next(values) for _ in solution.steps) for solution in problem.solutions)


def score_all(head: Head, sampled: Sequence[Sampled]) -> list[Scored]:
    """Every solution's step scores, as `EmbeddedPRM` gives them."""
    return [
        Scored(
            problem,
            tuple(tuple(head.score(list(own.astype(np.float32)))) for own in problem.states),
            tuple(problem.right),
        )
        for problem in sampled
    ]


# --- the command ------------------------------------------------------------------------------------------------------


Tiers = Sequence[tuple[int, int, int]]
"""Which problems of a family get how many solutions: `[(0, 8, 16), (8, 80, 4)]` gives problems 0 to 7 16 solutions and
8 to 79 4, and is written `8:16,80:4`; `8-16:16` leaves the first 8 out. Many problems teach more than many solutions of
one, which tell what a step can still reach."""


def selected(tiers: Mapping[str, Tiers]) -> dict[str, list[tuple[Problem, int]]]:
    """The problems of each split and their numbers of solutions: unseen families are only tested on."""
    chosen: dict[str, list[tuple[Problem, int]]] = {}
    for split, own in tiers.items():
        chosen[split] = [
            (problem, count)
            for name in (FAMILIES if split == "test" else TRAINED)
            for first, below, count in own
            for problem in problems(name, split, below)[first:]  # type: ignore[arg-type]
        ]
    return chosen


async def gather(
    folder: Path, chosen: dict[str, list[tuple[Problem, int]]], threads: int | None
) -> dict[str, list[Sampled]]:
    """Samples what is missing; tells how far it is and how long it may take.

    Args:
        folder: Where samples are kept.
        chosen: Problems of each split, with their numbers of solutions.
        threads: Cores to use.
    """
    settings = {
        "model": pull.EMBEDDED.sha256,
        "layers": CAPTURE,
        "window": WINDOW,
        "temperature": SAMPLING.temperature,
        "max_tokens": MAX_TOKENS,
    }
    cache = SampleCache(folder, settings)

    def loaded(split: str) -> list[Sampled]:
        found = (cache.load(problem, count) for problem, count in chosen[split])
        return [sampled for sampled in found if sampled is not None]

    sets = {split: loaded(split) for split in chosen}
    have = {sampled.problem for members in sets.values() for sampled in members}
    missing = [pair for members in chosen.values() for pair in members if pair[0] not in have]
    todo = len(missing)
    click.echo(f"{sum(map(len, chosen.values()))} problems, {todo} to sample, in {folder}")
    if not todo:
        return sets
    began, finished = time.monotonic(), 0

    def tell(sampled: Sampled, cached: bool) -> None:
        nonlocal finished
        finished += 1
        left = (time.monotonic() - began) / finished * (todo - finished) / 60
        click.echo(f"{finished}/{todo} {sampled.problem.split} {sampled.problem.family}, {left:.0f} min left")

    policy = EmbeddedPolicy(threads=threads)
    await policy.start()
    try:
        await sample_all(policy, missing, cache, done=tell)
    finally:
        await policy.close()
    return {split: loaded(split) for split in chosen}


@click.command(help="Samples, labels, trains, evaluates and writes the embedded PRM.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Weights; figures go beside them.")
@click.option("--profile", type=click.Path(path_type=Path), default=None, help="TOML profile to write, if any.")
@click.option("--samples", type=click.Path(path_type=Path), default=None, help="Folder of samples, kept between runs.")
@click.option("--train", "train_", default="8:16,80:4", show_default=True, help="Training problems: see `Tiers`.")
@click.option("--validation", default="4:16", show_default=True, help="Validation problems.")
@click.option("--test", default="8-16:16", show_default=True, help="Test problems; 0 to 7 were seen in development.")
@click.option("--seed", default=0, show_default=True, help="Seeds the training; samples have seeds of their own.")
@click.option("--threads", type=int, default=None, help="Cores to use.")
def main(**options: Any) -> None:
    """See the module's docstring."""
    import torch

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    out: Path = options["out"] or shipped()
    folder: Path = options["samples"] or pull.cache_root() / "prm-samples"
    pull.pull()
    names = {"train": "train_", "validation": "validation", "test": "test"}
    tiers = {split: _tiers(options[name]) for split, name in names.items()}
    sets = asyncio.run(gather(folder, selected(tiers), options["threads"]))
    settings = Training()
    head = train(sets["train"], sets["validation"], settings, options["seed"])
    score, vote, table = choose(score_all(head, sets["validation"]))
    measured = {
        "command": _command(options),
        "made": {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]},
        "training": {**{name: getattr(settings, name) for name in settings.__struct_fields__}, "seed": options["seed"]},
        "data": {split: _sizes(members) for split, members in sets.items()},
        "defaults": {"score": score, "vote": vote},
        "validation accuracy, half of the solutions": {name: round(value, 3) for name, value in table.items()},
        "validation": report(score_all(head, sets["validation"]), score)["all"],
        "test": report(score_all(head, sets["test"]), score),
    }
    save_head(head, out, measured["command"])
    if options["profile"]:
        options["profile"].write_text(profile_text(measured), encoding="utf-8")
    figures = out.with_suffix(".json")
    figures.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    click.echo(f"{out} ({out.stat().st_size / 1e6:.1f} MB), {figures}: score {score}, vote {vote}")
    click.echo(json.dumps({name: measured["test"][name] for name in list(measured["test"])[:3]}, indent=1))


def profile_text(measured: dict[str, Any]) -> str:
    """The profile (TOML) that says which score and vote suit this PRM, and how good it was found to be."""
    lines = [
        "# Written by tts_tui.evaluation.train_prm; docs/embedded-prm.md says what the figures mean.",
        'name = "embedded"',
        f'source = "{measured["command"]}"',
        "",
        "[defaults]",
        *(f'{name} = "{value}"' for name, value in measured["defaults"].items()),
        'source = "validation split: the pair with the best accuracy over random halves of the solutions"',
    ]
    for name in ("all", "trained families", "unseen families"):
        lines += ["", f'[test."{name}"]']
        for key, value in measured["test"].get(name, {}).items():
            if value is not None:
                lines.append(f"{json.dumps(key)} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def _tiers(text: str) -> Tiers:
    tiers: list[tuple[int, int, int]] = []
    for part in text.split(","):
        match = re.fullmatch(r"(?:(\d+)-)?(\d+):([1-9]\d*)", part)
        if not match:
            raise click.BadParameter(f"{part!r} is not PROBLEMS:SOLUTIONS, such as 8:16 or 8-16:16")
        first = int(match[1]) if match[1] else tiers[-1][1] if tiers else 0
        tiers.append((first, int(match[2]), int(match[3])))
    return tiers


def _command(options: dict[str, Any]) -> str:
    names = ("train_", "validation", "test", "seed")
    chosen = " ".join(f"--{name.removesuffix('_')} {options[name]}" for name in names)
    files = "--out tts_tui/data/embedded_prm.safetensors --profile tts_tui/profiles/embedded.toml"
    return f"python -m tts_tui.evaluation.train_prm {files} {chosen}"


def _sizes(sampled: Sequence[Sampled]) -> dict[str, int]:
    return {
        "problems": len(sampled),
        "solutions": sum(len(problem.solutions) for problem in sampled),
        "right": sum(sum(problem.right) for problem in sampled),
        "steps": sum(len(solution.steps) for problem in sampled for solution in problem.solutions),
    }


if __name__ == "__main__":
    main()
