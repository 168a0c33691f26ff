"""Lazy imports, and the exports of the package."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tts_tui

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "textual", "rich", "httpx", "aiohttp", "sympy", "numpy")


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that `code` imports in a new interpreter."""
    report = f"{code}\nimport sys, json; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, cwd=ROOT, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import tts_tui",
        "from tts_tui.cli.main import run; run(['--help'])",
        "from tts_tui.cli.main import run; run(['solve', '--help'])",
        "from tts_tui.cli.main import run; run(['eval', '--help'])",
        "from tts_tui.cli.main import run; run(['strategies'])",
        "from tts_tui.cli.main import run; run(['profiles']); run(['profiles', 'show', 'qwen'])",
        "from tts_tui import registry; registry.strategies()",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code):
    assert loaded_by(code).isdisjoint(HEAVY)


def test_a_plain_replay_loads_no_model_library(tmp_path):
    code = f"from tts_tui.cli.main import run; run(['replay', {str(tmp_path / 'none')!r}])"
    assert loaded_by(code).isdisjoint({"torch", "transformers", "textual"})


def test_the_terminal_ui_opens_without_what_it_needs_later():
    later = {"torch", "transformers", "numpy", "markdown_it", "textual_serve"}
    code = "import tts_tui.ui.launch; from tts_tui.cli.commands import Solver; Solver('embedded', 'embedded')"
    assert loaded_by(code).isdisjoint(later)


def test_the_terminal_ui_opens_without_a_model_library(tmp_path, monkeypatch):
    monkeypatch.setenv("TTS_TUI_HOME", str(tmp_path))
    code = """
import asyncio
from tts_tui import Solver
from tts_tui.ui.app import TTSApp
from tts_tui.ui.model_loader import ModelLoader

async def main():
    solver = Solver()
    app = TTSApp(ModelLoader(solver, "embedded", "embedded"), solver.plan())
    async with app.run_test() as pilot:
        await pilot.press("h", "i")
        assert app.screen.query_one("#problem").text == "hi"

asyncio.run(main())
"""
    assert loaded_by(code).isdisjoint({"torch", "transformers", "tokenizers", "numpy", "sympy", "aiohttp"})


@pytest.mark.parametrize("name", ["strategies", "backends"])
def test_the_folders_cannot_be_imported_by_their_bare_names(name):
    done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert f"ImportError: import tts_tui.{name}, not {name}" in done.stderr


def test_the_public_names_are_these():
    assert sorted(tts_tui.__all__) == [
        "Budget",
        "Chunk",
        "ModelInfo",
        "Node",
        "Plan",
        "Policy",
        "Prompt",
        "Result",
        "RewardModel",
        "Sampling",
        "ScoreRequest",
        "Search",
        "SearchTree",
        "SearchView",
        "Solver",
        "StepRequest",
        "StepScore",
        "Strategy",
        "TTSError",
        "Usage",
        "__version__",
        "default_plan",
        "load",
        "read",
        "solve",
    ]
    assert all(hasattr(tts_tui, name) for name in tts_tui.__all__)


def test_every_public_name_in_the_package_is_exported():
    source = ast.parse((ROOT / "tts_tui" / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(source) if isinstance(node, ast.ImportFrom)]
    imported = {name.name for node in imports if (node.module or "").startswith("tts_tui") for name in node.names}
    assert imported == set(tts_tui.__all__)
    assert tts_tui.__all__ == sorted(tts_tui.__all__)


def test_every_package_has_a_layer_and_every_module_keeps_out_model_or_terminal_libraries():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = {name for layer in contracts[0]["layers"] for name in layer.split(" : ")}
    guarded = {name for contract in contracts[1:] for name in contract["source_modules"]}
    children = [path for path in (ROOT / "tts_tui").iterdir() if not path.name.startswith("_")]
    packages = {f"tts_tui.{path.name}" for path in children if (path / "__init__.py").exists()}
    packages |= {"tts_tui.strategies", "tts_tui.backends"}
    modules = {f"tts_tui.{path.stem}" for path in children if path.suffix == ".py"}
    assert packages <= layers
    assert guarded | {"tts_tui.ui"} == packages | modules  # only ui may import anything
    assert layers <= packages | modules
