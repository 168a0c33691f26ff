"""Make a virtual environment with a real SGLang that serves small models on a CPU, for tests: about 2 GB.

`python scripts/sglang_cpu/install.py VENV`

SGLang is built for GPUs. Its scheduler, radix cache and HTTP server run unchanged on a CPU once their imports succeed:
some packages are installed without the CUDA packages they depend on, and two that consist of kernels only are replaced
by stubs (`stubs/`).

A second run returns at once: a stamp in VENV is named after this folder's contents.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"
BARE = ("sglang==0.5.23", "torchvision==0.28.0", "xgrammar==0.2.7")
"""Requirements installed without their dependencies, which would bring CUDA or another torch."""

LOG, LINES = "set-up.log", 20
OPERATORS = """

if not _has_ops():
    # Declared for tts-tui: torchvision's own library needs CUDA's, and SGLang only looks these two up.
    _declared = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _declared.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""


class Failed(Exception):
    """A failure to install SGLang; the message is a sentence for the user."""


def stamp(folder: Path) -> Path:
    """Return the file that marks `folder` as complete and made from the current contents of this folder."""
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted(HERE.rglob("*")):
        if file.suffix in (".py", ".txt"):
            digest.update(file.read_bytes())
    return folder / f".sglang-cpu-{digest.hexdigest()[:16]}"


def run(folder: Path, what: str, *command: str | Path) -> str:
    """Run `command`, log its output, and return it; it is printed only on failure.

    Raises:
        Failed: The command failed.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    with (folder / LOG).open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(map(str, command))}\n{done.stdout}")
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-LINES:]), file=sys.stderr)
        raise Failed(f"{what} failed; the end of its log is above, and all of it in {folder / LOG}")
    return done.stdout


def install(folder: Path) -> None:
    """Install SGLang into `folder`, reusing what an earlier run left there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True, clear=True, symlinks=True)
    (folder / LOG).unlink(missing_ok=True)
    for old in folder.glob(".sglang-cpu-*"):
        old.unlink()
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(folder, "upgrading pip", *pip, "--upgrade", "pip>=25")
    run(folder, f"installing {TORCH}", python, HERE.parent / "install_torch.py", TORCH)
    run(folder, "installing what SGLang needs", *pip, "--requirement", HERE / "requirements.txt")
    run(folder, "installing SGLang", *pip, "--no-deps", *BARE)
    where = run(folder, "asking for its folder", python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    site = Path(where.strip())
    shutil.copytree(HERE / "stubs", site, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    extension = site / "torchvision" / "extension.py"
    code = extension.read_text(encoding="utf-8")
    if OPERATORS not in code:
        extension.write_text(code + OPERATORS, encoding="utf-8")
    run(folder, "importing SGLang", python, "-c", "import sglang.launch_server")


def main() -> int:
    if len(sys.argv) != 2:
        print("say where: python scripts/sglang_cpu/install.py VENV", file=sys.stderr)
        return 2
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print("SGLang's CPU server is set up on Linux x86-64 only", file=sys.stderr)
        return 2
    folder = Path(os.path.abspath(sys.argv[1]))
    done = stamp(folder)
    if done.exists():
        return 0
    print(f"Setting up SGLang for tests in {folder.name}, once: some minutes, about 2 GB.", flush=True)
    try:
        install(folder)
    except (Failed, OSError, subprocess.CalledProcessError) as error:
        print(f"SGLang's CPU server could not be set up: {error}", file=sys.stderr)
        return 1
    done.touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
