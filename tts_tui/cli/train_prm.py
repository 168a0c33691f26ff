"""Implementation of `tts-tui train-prm`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_tui.errors import BackendUnavailable, TTSError
from tts_tui.evaluation.datasets.data_files import Columns
from tts_tui.ui.model_loader import quieten


def train_prm(given: Mapping[str, Any]) -> int:
    """Train a PRM, with progress on standard error and a summary of the result on standard output."""
    quieten()
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable("training needs torch: pip install torch") from error
    from tts_tui.training.prm.fit import Recipe
    from tts_tui.training.prm.train import TrainConfig, check, train

    out: Path = given["out"]
    recipe = {name: given[name] for name in ("tokens", "learning_rate", "seed") if given[name] is not None}
    names = tuple(name.strip() for name in (given["families"] or "").split(",") if name.strip())
    config = TrainConfig(
        out,
        given["work_dir"] or out.with_name(out.name + ".work"),
        given["policy"],
        names,
        given["problems"],
        Columns(given["problem_column"], given["answer_column"]),
        samples=given["samples"],
        rollouts=given["rollouts"],
        max_solution_tokens=given["max_solution_tokens"],
        first_layer=given["first_layer"],
        rank=given["rank"],
        recipe=Recipe(**recipe),
        threads=given["threads"],
    )
    check(config)
    _tell(f"samples and training state are kept in {config.work_dir}: run the same command again to resume")
    try:
        figures = train(config, _tell)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise TTSError(
            f"the training stopped ({what}); run the same command again to continue from {config.work_dir}"
        ) from error
    found = figures["validation"]["all"]
    print(
        f"on {found['problems']} validation problems: AUC within problems {found['auc_within']}, one sample right "
        f"{found['pass@1']}, majority {found['majority']}, best score {found['prm-max']}, any {found['pass@k']}; "
        f"score {figures['defaults']['score']}, vote {figures['defaults']['vote']}\n"
        f"use it with --prm adapter:{config.out}"
    )
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
