"""The contents of a wheel, and the choice of a torch build."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def sources() -> set[str]:
    """Return all files of the checkout that a wheel must contain, by their paths in the wheel."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = (
        listed.stdout.split()
        if listed.returncode == 0
        else [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    )
    found = {file for file in files if file.startswith("tts_tui/")}
    found |= {f"tts_tui/{file}" for file in files if file.startswith(("strategies/", "backends/"))}
    return {file for file in found if "__pycache__" not in file}


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def build(what: str, source: Path, out: Path) -> Path:
    """Build without isolation: with the setuptools of this environment, without network."""
    command = [sys.executable, "-m", "build", "--no-isolation", f"--{what}", "--outdir", str(out), str(source)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the tracked files, so that building does not write into the checkout."""
    copy = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.split():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_beside_it(checkout, tmp_path):
    held = members(build("wheel", checkout, tmp_path / "wheel"))
    assert {name.partition("/")[0] for name in held} == {"tts_tui"}
    assert held == sources()


@pytest.mark.slow
def test_the_wheel_made_from_the_source_distribution_is_the_same(checkout, tmp_path):
    packed = build("sdist", checkout, tmp_path / "sdist")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert members(build("wheel", unpacked, tmp_path / "wheel")) == sources()


# -- torch -------------------------------------------------------------------------------------------------------------


def installer():
    spec = importlib.util.spec_from_file_location("install_torch", ROOT / "scripts" / "install_torch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pip_report(*needs: str) -> dict:
    return {"install": [{"metadata": {"requires_dist": list(needs)}}]}


def test_a_torch_with_cuda_is_told_from_one_without():
    tell = installer().cuda_packages
    assert tell(pip_report("filelock", "sympy>=1.13")) == []
    assert tell({"install": [{"metadata": {}}]}) == []
    assert tell(pip_report("filelock", "nvidia-cublas-cu12==12.1; python_version >= '3'")) == ["nvidia-cublas-cu12"]
    assert tell(pip_report("nvidia-cublas-cu12; sys_platform == 'another'", "opt-einsum; extra == 'opt'")) == []


@pytest.mark.parametrize(
    ("cuda", "build", "uv_works", "code", "calls"),
    [
        (False, "cpu", True, 0, ["torch"]),
        (True, "cpu", True, 0, ["uv", "torch by uv"]),
        (True, "cpu", False, 1, ["uv", "torch by uv"]),
        (True, "pip", True, 0, ["torch"]),
    ],
)
def test_cuda_is_never_taken_by_surprise(cuda, build, uv_works, code, calls, monkeypatch, capsys):
    module, made = installer(), []

    def run(command, check, **options):
        failed = 0
        if "--dry-run" in command:
            report = pip_report(*(["nvidia-cublas-cu12"] if cuda else []))
            return subprocess.CompletedProcess(command, 0, json.dumps(report).encode())
        if "uv" in command and "--torch-backend" in command:
            made.append("torch by uv")
            assert command[-3:] == ["--torch-backend", "cpu", "torch==1.2.3"]
            failed = 0 if uv_works else 1
        else:
            made.append(command[-1].partition("=")[0])
        return subprocess.CompletedProcess(command, failed)

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["install_torch.py", "torch==1.2.3"])
    monkeypatch.setenv("TORCH_BUILD", build)
    assert module.main() == code
    assert made == calls
    assert ("TORCH_BUILD=pip" in capsys.readouterr().err) == (code == 1)
