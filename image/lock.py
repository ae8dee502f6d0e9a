"""Write image/cpu.lock and image/cuda.lock: what pip resolves for pud and its server extra under constraints.txt.

python image/lock.py [cpu|cuda ...], with the image's Python on Linux x86-64: each package gets the sha256 of the one
file that pip takes there. All are PyPI's, whatever this machine is set to, but the cpu variant's torch: that is in the
index TORCH_INDEX or, where TORCH_WHEELS names a folder of wheels, there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
HEADER = "# Written by `make lock`. Every package of the image's {} variant, by its file for Linux x86-64.\n"


def sources(variant: str) -> dict[str, str]:
    """Return pip's settings of where the files of a variant are."""
    given = os.environ if variant == "cpu" else {}
    places = {"PIP_FIND_LINKS": given.get("TORCH_WHEELS", ""), "PIP_EXTRA_INDEX_URL": given.get("TORCH_INDEX", "")}
    return {**places, "PIP_CONFIG_FILE": os.devnull}


def resolve(variant: str) -> list[dict[str, Any]]:
    """Return pip's report on everything that the variant installs."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    done = subprocess.run(
        [*command, "--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[server]"],
        env=os.environ | sources(variant),
        stdout=subprocess.PIPE,
        check=True,
    )
    installed: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return installed


def locked(installed: list[dict[str, Any]]) -> list[str]:
    """Return ``NAME==VERSION --hash=sha256:DIGEST`` of each package of a report but pud itself, sorted."""
    packages = {one["metadata"]["name"].lower(): one for one in installed}
    packages.pop("pud")
    return [
        f"{name}=={one['metadata']['version']} --hash=sha256:{one['download_info']['archive_info']['hashes']['sha256']}"
        for name, one in sorted(packages.items())
    ]


if __name__ == "__main__":
    for name in sys.argv[1:] or ["cpu", "cuda"]:
        path = ROOT / "image" / f"{name}.lock"
        path.write_text(HEADER.format(name) + "\n".join(locked(resolve(name))) + "\n")
