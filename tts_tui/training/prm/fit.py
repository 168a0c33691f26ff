"""Training of an adapter on texts: right solutions become more likely, and wrong steps thereby less likely."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import torch
from msgspec import Struct
from torch import Tensor

from tts_tui.backends.adapter.file import Shape
from tts_tui.backends.adapter.lora import adapted, learned, put
from tts_tui.backends.adapter.text import AdapterText
from tts_tui.backends.local.loading import first_line
from tts_tui.training.prm.texts import Text, TrainingRow, row

BATCHES = 16
"""Number of batches that are drawn together and sorted by length, to reduce padding."""

SAVE_SECONDS = 60.0


class Recipe(Struct, frozen=True):
    """The hyperparameters of a training.

    Attributes:
        tokens: Number of tokens to train on.
        batch: Number of tokens in an optimizer step.
        learning_rate: Peak learning rate (AdamW); it rises over `warmup` steps and decays to zero along a cosine.
        warmup: Number of warm-up steps.
        decay: Weight decay.
        seed: Seed of the adapter's initial weights.
    """

    tokens: int = 800_000
    batch: int = 1600
    learning_rate: float = 1e-3
    warmup: int = 20
    decay: float = 0.01
    seed: int = 0


class FitProgress(Struct, frozen=True):
    """Progress of a training.

    Attributes:
        tokens: Tokens done.
        total: Tokens to do in total.
        loss: Mean loss of the last steps, at most 50.
        speed: Tokens per second.
        left: Seconds left.
    """

    tokens: int
    total: int
    loss: float
    speed: float
    left: float


def vocabulary(texts: Sequence[Text], layout: AdapterText) -> Tensor:
    """Return the ids of all tokens in the texts, sorted."""
    return torch.tensor(sorted({token for text in texts for token in row(text, layout).ids}))


class Fit:
    """A training of an adapter that can be interrupted and resumed.

    Args:
        model: The base model, in float32.
        layout: Layout of texts as token ids.
        shape: Shape of the adapter: the layers that it adapts and its rank.
        recipe: The hyperparameters.
        choices: Ids of the tokens among which the adapter learns to choose.
        state: File to resume from, updated while training.
        of: Identity of the base model and the texts; the state of a training with another identity is ignored.
    """

    def __init__(
        self,
        model: Any,
        layout: AdapterText,
        shape: Shape,
        recipe: Recipe,
        choices: Tensor,
        state: Path | None = None,
        of: str = "",
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.model = adapted(model, shape)
        self._layout, self._recipe, self._state = layout, recipe, state
        self._parameters = dict(learned(self.model))
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=recipe.learning_rate, weight_decay=recipe.decay, betas=(0.9, 0.98)
        )
        table = self.model.get_output_embeddings().weight.detach()
        self._rows = table[choices.to(table.device)]
        self._place = torch.full((table.shape[0],), -1, device=table.device)
        self._place[choices] = torch.arange(len(choices), device=table.device)
        self.done = 0
        self._drawn = 0
        self._key = msgspec.json.encode((shape, recipe, choices.tolist(), *filter(None, [of]))).decode()
        self._resume()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Copy of the adapter's current weights, by name."""
        return {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    def run(self, texts: Iterator[Text], tell: Callable[[FitProgress], None]) -> None:
        """Train until all tokens of the recipe are done.

        Args:
            texts: An endless iterator, which must yield the same texts at every start.
            tell: Called with the progress after every step.
        """
        for _ in islice(texts, self._drawn):
            pass
        began, first, saved = time.monotonic(), self.done, time.monotonic()
        losses: list[float] = []
        while self.done < self._recipe.tokens:
            for batch in self._batches(texts):
                losses = [*losses[-49:], self._step(batch)]
                self.done += sum(len(one.ids) for one in batch)
                speed = (self.done - first) / (time.monotonic() - began)
                left = max(0, self._recipe.tokens - self.done)
                tell(FitProgress(self.done, self._recipe.tokens, sum(losses) / len(losses), speed, left / speed))
                if not left:
                    break
            if time.monotonic() - saved > SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
        self._save()

    def _batches(self, texts: Iterator[Text]) -> list[list[TrainingRow]]:
        """Return some batches of rows of similar length, in random order."""
        drawn: list[TrainingRow] = []
        while sum(len(one.ids) for one in drawn) < BATCHES * self._recipe.batch:
            drawn.append(row(next(texts), self._layout))
            self._drawn += 1
        drawn.sort(key=lambda one: len(one.ids))
        batches: list[list[TrainingRow]] = [[]]
        for one in drawn:
            if (len(batches[-1]) + 1) * len(one.ids) > self._recipe.batch and batches[-1]:
                batches.append([])
            batches[-1].append(one)
        order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(self._drawn)).tolist()
        return [batches[place] for place in order]

    def _step(self, batch: Sequence[TrainingRow]) -> float:
        longest = max(len(one.ids) for one in batch)
        device = self._rows.device
        ids = torch.tensor([[*one.ids, *[0] * (longest - len(one.ids))] for one in batch], device=device)
        targets = torch.tensor([[*one.targets, *[-1] * (longest - len(one.ids))] for one in batch], device=device)
        # Rows are padded at their ends, to which no token attends under causal attention.
        states = self.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        wanted = torch.where(targets >= 0, self._place[targets.clamp(min=0)], -1)
        known = wanted >= 0
        loss = torch.nn.functional.cross_entropy(states[known] @ self._rows.T, wanted[known])
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        self._optimizer.step()
        return float(loss.detach())

    def _rate(self) -> float:
        share = min(1.0, self.done / self._recipe.tokens)
        warm = min(1.0, (self.done / self._recipe.batch + 1) / self._recipe.warmup)
        return self._recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * share))

    def _save(self) -> None:
        if self._state is None:
            return
        self._state.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._state.with_suffix(".part")
        stored = {"key": self._key, "done": self.done, "drawn": self._drawn, "tensors": self.tensors}
        try:
            torch.save({**stored, "optimizer": self._optimizer.state_dict()}, scratch)
        except RuntimeError as error:  # raised by torch if the disk is full
            raise OSError(f"{scratch} cannot be written: {first_line(error)}") from error
        scratch.replace(self._state)

    def _resume(self) -> None:
        if self._state is None or not self._state.is_file():
            return
        try:
            stored = torch.load(self._state, map_location="cpu", weights_only=True)
        except Exception:  # truncated by a full disk, or of another version: start over
            return
        if not isinstance(stored, dict) or stored.get("key") != self._key:
            return
        put(self.model, stored["tensors"])
        self._optimizer.load_state_dict(stored["optimizer"])
        self.done, self._drawn = stored["done"], stored["drawn"]
