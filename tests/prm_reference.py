"""Reference scores of PRMs: complete texts, complete sequences, transformers' own classes, no cache.

This is based on the official code of each PRM (prm.md) and shares no code with this project. Inputs are encoded as the
official code encodes them, mostly as one string; one forward pass in float32 covers the complete path; the scores of
all steps are read at their positions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer

SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."
PLACEHOLDER, PLUS, MINUS = 128002, 10, 12
GOOD, BAD, KI = 648, 387, 12902
EXTRA_0, NEWLINE = 151651, 198


class Input(NamedTuple):
    """One input sequence.

    Attributes:
        ids: The tokens of the complete path.
        places: The positions of each step's score; for an outcome reward model, only that of the complete path.
    """

    ids: list[int]
    places: list[int]


class Reference:
    """A reference implementation of the scores of one checkpoint.

    Args:
        kind: The kind of PRM, as in `tests.tiny_prms`.
        folder: The folder of the checkpoint.
        layout: `official`, or `paper` for the layout of arXiv 2502.06703 where it differs.
    """

    def __init__(self, kind: str, folder: Path, layout: Literal["official", "paper"] = "official") -> None:
        self.kind, self.folder, self.layout = kind.removesuffix("-qwen"), folder, layout
        self._settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    # -- inputs --------------------------------------------------------------------------------------------------------

    def input(self, question: str, steps: Sequence[str]) -> Input:
        """Return the tokens of a path, and where its scores are read; whitespace around question and steps is stripped.

        Raises:
            ValueError: The official code finds more or fewer positions than there are steps: a text contains a tag.
        """
        make = {
            "math-shepherd": self._math_shepherd,
            "rlhflow": self._rlhflow,
            "skywork": self._skywork,
            "qwen": self._qwen,
            "trl": self._trl,
            "outcome": self._outcome,
        }[self.kind]
        made = make(question.strip(), [step.strip() for step in steps])
        if len(made.places) != (1 if self.kind == "outcome" else len(steps)):
            raise ValueError(f"{len(made.places)} places for {len(steps)} steps")
        return made

    def _encode(self, text: str, special: bool = False) -> list[int]:
        """Encode a complete string, in which special tokens are recognised, as in the official code."""
        return list(self._tokenizer.encode(text, add_special_tokens=special).ids)

    def _render(self, *messages: tuple[str, str]) -> str:
        chat = [{"role": role, "content": content} for role, content in messages]
        return str(self._fast.apply_chat_template(chat, tokenize=False, add_generation_prompt=False))

    @cached_property
    def _fast(self) -> Any:
        return transformers.AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)

    def _math_shepherd(self, question: str, steps: list[str]) -> Input:
        if self.layout == "official":
            steps = [
                step if re.match(r"Step \d+:", step) else f"Step {i}: {step}" for i, step in enumerate(steps, start=1)
            ]
        text = f"{question} " + "\n".join(f"{step} ки" for step in steps)
        if self.layout == "paper":
            text += "\n"
        return _at(self._encode(text, special=True), KI)

    def _rlhflow(self, question: str, steps: list[str]) -> Input:
        messages = []
        for i, step in enumerate(steps):
            content = step if i else f"{question} {step}"
            messages += [("user", content), ("assistant", "<|reserved_special_token_0|>")]
        ids, places = _at(self._encode(self._render(*messages)), PLACEHOLDER)
        filled = [PLUS if token == PLACEHOLDER else token for token in ids]
        return Input(filled, [place - 1 for place in places])

    def _skywork(self, question: str, steps: list[str]) -> Input:
        ids = self._encode(f"{self._settings['bos_token']}{question}\n")
        places = []
        for step in steps:
            lines = step.split("\n") if self.layout == "official" else [step.replace("\n", " ")]
            for line in lines:
                ids += [*(self._encode(line) if line else []), NEWLINE]
            places.append(len(ids) - 1)  # for a step of several lines, the last
        return Input(ids, places)

    def _qwen(self, question: str, steps: list[str]) -> Input:
        answer = "".join(f"{step}<extra_0>" for step in steps)
        text = self._render(("system", SYSTEM), ("user", question), ("assistant", answer))
        return _at(self._encode(text), EXTRA_0)

    def _trl(self, question: str, steps: list[str]) -> Input:
        bos = self._settings.get("bos_token")
        ids = [*([self._tokenizer.token_to_id(bos)] if bos else []), *self._encode(question)]
        places = []
        for step in steps:
            ids += self._encode(step) + self._encode("\n")
            places.append(len(ids) - 1)
        return Input(ids, places)

    def _outcome(self, question: str, steps: list[str]) -> Input:
        ids = self._encode(self._render(("user", question), ("assistant", "\n\n".join(steps))))
        return Input(ids, [len(ids) - 1])

    # -- scores --------------------------------------------------------------------------------------------------------

    def scores(self, question: str, steps: Sequence[str]) -> list[float]:
        """Return the score of each step, from one pass; for an outcome reward model, from one pass per step."""
        if self.kind == "outcome":
            return [self._run([self.input(question, steps[:end])])[0][0] for end in range(1, len(steps) + 1)]
        return self._run([self.input(question, steps)])[0]

    def scores_in_a_batch(
        self, paths: Sequence[tuple[str, Sequence[str]]], side: Literal["left", "right"]
    ) -> list[list[float]]:
        """Return the scores of several paths from one pass, with the shorter ones padded and masked on one side.

        Args:
            paths: The question and steps of each path.
            side: The side of the padding.

        Returns:
            The scores of each path's steps; for an outcome reward model, only that of its last step.
        """
        return self._run([self.input(question, steps) for question, steps in paths], side)

    def _run(self, inputs: Sequence[Input], side: Literal["left", "right"] = "right") -> list[list[float]]:
        longest = max(len(item.ids) for item in inputs)
        ids = torch.full((len(inputs), longest), self._pad)
        mask = torch.zeros_like(ids)
        starts = [longest - len(item.ids) if side == "left" else 0 for item in inputs]
        for row, (item, start) in enumerate(zip(inputs, starts, strict=True)):
            ids[row, start : start + len(item.ids)] = torch.tensor(item.ids)
            mask[row, start : start + len(item.ids)] = 1
        with torch.inference_mode():
            outputs = self._outputs(ids, mask)
        if self.kind == "outcome":  # transformers' class has already selected the last token
            return [[float(row.sigmoid())] for row in outputs]
        return [
            [self._score(outputs[row, start + place]) for place in item.places]
            for row, (item, start) in enumerate(zip(inputs, starts, strict=True))
        ]

    def _outputs(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the head's outputs for each token."""
        asked = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        if self.kind in ("skywork", "qwen"):
            states = self._model(**asked).last_hidden_state  # after the final norm, like `hidden_states[-1]`
            if self.kind == "skywork":
                return self._linear(states, "v_head.summary")
            return self._linear(torch.relu(self._linear(states, "score.0")), "score.2")
        return torch.as_tensor(self._model(**asked).logits)

    def _score(self, outputs: torch.Tensor) -> float:
        if self.kind == "math-shepherd":
            return float(torch.softmax(outputs[[GOOD, BAD]], dim=0)[0])
        if self.kind == "rlhflow":
            return float(torch.softmax(outputs[[PLUS, MINUS]], dim=0)[0])
        if self.kind == "skywork":
            return float(torch.sigmoid(outputs[0]))
        return float(torch.softmax(outputs, dim=0)[1])

    def _linear(self, states: torch.Tensor, name: str) -> torch.Tensor:
        return states @ self._tensors[f"{name}.weight"].T + self._tensors[f"{name}.bias"]

    @cached_property
    def _tensors(self) -> dict[str, torch.Tensor]:
        whole = load_file(self.folder / "model.safetensors")
        return {name: tensor.float() for name, tensor in whole.items() if name.startswith(("v_head.", "score."))}

    @cached_property
    def _model(self) -> Any:
        (architecture,) = json.loads((self.folder / "config.json").read_text("utf-8"))["architectures"]
        known = architecture if hasattr(transformers, architecture) else "Qwen2Model"
        model, found = getattr(transformers, known).from_pretrained(
            self.folder,
            dtype=torch.float32,
            attn_implementation="eager",
            trust_remote_code=False,
            output_loading_info=True,
        )
        if found["missing_keys"] or found["mismatched_keys"]:  # transformers would initialize them at random
            raise ValueError(f"{self.folder} lacks {found['missing_keys']} or has them in another shape")
        model.config.pad_token_id = self._pad  # used to find the last token of a sequence
        return model.eval()

    @property
    def _pad(self) -> int:
        """An arbitrary token that does not end a text."""
        return {"mistral": 0, "llama": 128004, "qwen2": 151643}[self._config_type]

    @cached_property
    def _config_type(self) -> str:
        return str(json.loads((self.folder / "config.json").read_text("utf-8"))["model_type"])


def _at(ids: list[int], tag: int) -> Input:
    return Input(ids, [place for place, token in enumerate(ids) if token == tag])
