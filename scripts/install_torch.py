"""Install torch into the running environment, without pulling in several gigabytes of CUDA unasked.

`python scripts/install_torch.py torch==2.13.0`, with TORCH_BUILD=cpu (default) or TORCH_BUILD=pip.

The user's pip settings determine the source of torch. The build that pip would install is inspected first, and
installed if it needs no CUDA. If it needs CUDA's libraries and the user did not ask for them, uv installs the CPU build
of the same version, since uv knows PyTorch's own index. TORCH_BUILD=pip installs whatever pip selects, CUDA included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq"]  # print errors only
HELP = """\
The package index of pip offers {requirement} only with CUDA, which is several gigabytes, and its CPU build could not be
taken from where PyTorch keeps it. Choose one:
  - point pip at an index or a folder that has the CPU build (`pip config set global.extra-index-url ...` or
    `global.find-links ...`; PyTorch's "Get started" page has the address), and run make again;
  - take CUDA: make TORCH_BUILD=pip ..."""


def is_there(requirement: str) -> bool:
    """Return whether exactly this version is installed, in any build."""
    try:
        return requirement == f"torch=={version('torch').partition('+')[0]}"
    except PackageNotFoundError:
        return False


def cuda_packages(report: dict[str, Any]) -> list[str]:
    """Return the CUDA packages that the torch of a pip report needs on this machine."""
    from pip._vendor.packaging.requirements import Requirement

    needs = [Requirement(line) for item in report["install"] for line in item["metadata"].get("requires_dist", [])]
    here = [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return [name for name in here if name.startswith(("nvidia-", "cuda-"))]


def what_pip_takes(requirement: str) -> dict[str, Any]:
    """Return pip's report on `requirement`, without its dependencies and without installing anything."""
    look = [*PIP, "install", "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", requirement]
    report: dict[str, Any] = json.loads(subprocess.run(look, check=True, stdout=subprocess.PIPE).stdout)
    return report


def main() -> int:
    requirement, build = sys.argv[1], os.environ.get("TORCH_BUILD", "cpu")
    if is_there(requirement):
        return 0
    try:
        if build == "pip" or not cuda_packages(what_pip_takes(requirement)):
            subprocess.run([*PIP, "install", requirement], check=True)
            return 0
        print(f"pip would take {requirement} with CUDA: taking its CPU build instead", flush=True)
        subprocess.run([*PIP, "install", "uv"], check=True)
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
        # Without dependencies: they are small, and pip installs them according to the user's settings.
        if subprocess.run([*uv, "--no-deps", "--torch-backend", "cpu", requirement], check=False).returncode == 0:
            return 0
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    print(HELP.format(requirement=requirement), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
