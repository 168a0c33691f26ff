"""Programs that use the installed package pass strict type checks against its types."""

from __future__ import annotations

import re
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTIAL = (
    "torch", "transformers", "safetensors", "gguf", "sglang", "tokenizers", "sympy", "pylatexenc", "math_verify",
    "scipy", "sklearn", "matplotlib",
)  # fmt: skip
"""Packages whose imports are not followed, which would take minutes."""

PROGRAMS = {
    "streams": """
        import asyncio
        from contextlib import aclosing

        from tts_tui import Plan, Result, Solver
        from tts_tui.tree.events import AnyEvent, SearchFinished


        async def main() -> None:
            async with Solver(policy="embedded", prm=None) as solver:
                async with aclosing(solver.stream("What is 1 + 1?", Plan(n=2, vote="majority"))) as events:
                    async for event in events:
                        if isinstance(event, SearchFinished):
                            print(event.answer)
                async with aclosing(solver.solve_many(["1 + 1", "2 + 2"], parallel=2)) as results:
                    async for result in results:
                        show(result)
                many = solver.solve_many(["1 + 1"])
                first: Result = await anext(many)
                await many.aclose()
                events = solver.stream("1 + 1")
                event_: AnyEvent = await anext(events)
                await events.aclose()
                print(first, event_)


        def show(result: Result) -> None:
            print(result.index, result.answer, result.votes)


        asyncio.run(main())
    """,
    "resumes": """
        import asyncio
        from pathlib import Path

        from tts_tui import Budget, Result, Solver, load, solve
        from tts_tui.errors import SinkError, TTSError
        from tts_tui.tree.events import AnyEvent, Notice
        from tts_tui.tree.recording import Recording


        def listen(event: AnyEvent) -> None:
            if isinstance(event, Notice) and event.warning:
                print(event.message)


        async def main(path: Path) -> Result | None:
            recording = Recording.load(path)
            async with Solver() as solver:
                try:
                    return await solver.resume(recording, sinks=[listen], budget=Budget(tokens=1000))
                except SinkError as error:
                    print(error.__cause__)
                except TTSError as error:
                    print(error, error.exit_code)
            return None


        asyncio.run(main(Path("run.jsonl")))
        print(solve("1 + 1", on_event=listen).answer, len(load("run.jsonl")))
    """,
    "plugs_in": """
        from collections.abc import AsyncGenerator, Sequence

        from tts_tui import (
            Chunk, ModelInfo, Policy, Prompt, RewardModel, ScoreRequest, Solver, StepRequest, StepScore, Usage
        )


        class Echo:
            @property
            def info(self) -> ModelInfo:
                return ModelInfo("echo", 1, 4096)

            async def start(self) -> None: ...

            async def close(self) -> None: ...

            async def prompt(self, problem: str) -> Prompt:
                return Prompt(problem, (1,))

            async def stream(self, request: StepRequest) -> AsyncGenerator[Chunk, None]:
                if not request.ahead:
                    yield Chunk((2,), "x", finish="eos", usage=Usage(completion=1))


        class Fair:
            @property
            def info(self) -> ModelInfo:
                return ModelInfo("fair", 1, 4096)

            async def start(self) -> None: ...

            async def close(self) -> None: ...

            async def score(self, requests: Sequence[ScoreRequest]) -> list[StepScore]:
                return [StepScore(0.5) for _ in requests]


        policy: Policy = Echo()
        prm: RewardModel = Fair()
        print(Solver(policy, prm).plan("beam", n=8, m=4))
    """,
}


def documented() -> dict[str, str]:
    """Return the Python programs in the README and the docs, by a name derived from their location."""
    found = {}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)):
            found[f"{page.stem.lower().replace('-', '_')}_{number}"] = block
    return found


def dedent(program: str) -> str:
    return re.sub(r"^        ", "", program.strip("\n"), flags=re.M)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an environment with the package installed as from a wheel, and with the dependencies of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(home)}))
    package = packages / "tts_tui"
    package.mkdir()
    for part in (*(ROOT / "tts_tui").iterdir(), ROOT / "strategies", ROOT / "backends"):
        (package / part.name).symlink_to(part)
    own = [str(Path(entry)) for entry in sys.path if "site-packages" in entry] or site.getsitepackages()
    (packages / "dependencies.pth").write_text("".join(f"{entry}\n" for entry in own))
    return Path(sysconfig.get_path("scripts", "venv", {"base": str(home)})) / "python"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_programs_of_users_pass_strict_type_checks(python, tmp_path):
    programs = {name: dedent(program) for name, program in PROGRAMS.items()} | documented()
    programs |= {path.stem: path.read_text("utf-8") for path in (ROOT / "examples").glob("*.py")}
    assert len(programs) > len(PROGRAMS) + 5
    for name, program in programs.items():
        (tmp_path / f"{name}.py").write_text(program)
    skip = ", ".join(f"{name}.*" for name in PARTIAL)
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\n[mypy-{skip.replace(', ', ',')}]\n"
        "follow_imports = skip\nfollow_imports_for_stubs = true\nignore_missing_imports = true\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        str(python),
        "--config-file",
        "mypy.ini",
    ]
    done = subprocess.run(
        [*command, *(f"{name}.py" for name in programs)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
