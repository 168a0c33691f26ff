"""Make the pictures of the README: real searches of the embedded models, drawn by the terminal UI.

    python scripts/pictures.py

The models generate the same text with the same seed and versions, up to the order in which steps end.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tts_tui import Solver, read
from tts_tui.displays.export import without_fonts
from tts_tui.ui.app import TTSApp
from tts_tui.ui.model_loader import ModelLoader
from tts_tui.ui.player import Player
from tts_tui.ui.screens.compare import CompareScreen
from tts_tui.ui.screens.run import RunScreen

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
PROBLEM = "What is 7 * 6 + 5?"


async def record(folder: Path, strategy: str, n: int) -> Path:
    path = folder / f"{strategy}.jsonl"
    async with Solver() as solver:
        await solver.solve(PROBLEM, solver.plan(strategy, n=n, why="to show it"), record=path)
    return path


async def draw(name: str, size: tuple[int, int], screen: RunScreen | CompareScreen, *keys: str) -> None:
    solver = Solver()
    app = TTSApp(ModelLoader(solver, "embedded", "embedded"), solver.plan())
    async with app.run_test(size=size) as pilot:
        await app.push_screen(screen)
        await pilot.pause(0.5)
        await pilot.press(*keys)
        await pilot.pause(0.5)
        (FOLDER / f"{name}.svg").write_text(without_fonts(app.export_screenshot()), encoding="utf-8")


def film(path: Path, share: float) -> Player:
    player = Player(list(read(path)))
    player.playing = False
    player.seek(round(share * len(player)))
    return player


async def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        beam = await record(Path(folder), "beam", 16)
        best = await record(Path(folder), "best-of-n", 16)
        await draw("run", (128, 36), RunScreen(player=film(beam, 0.62), title="replay"), *["down"] * 3)
        await draw("compare", (128, 36), CompareScreen(film(beam, 1).model, film(best, 1).model, ("beam", "best-of-n")))


if __name__ == "__main__":
    asyncio.run(main())
