"""Write image/cpu.lock and image/cuda.lock: what pip resolves for pud and its server extra under constraints.txt.

python image/lock.py [cpu|cuda ...]; TORCH_INDEX names the index of torch without CUDA, unless pip finds its wheel.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADER = "# Written by `make lock`. Every package of the image's {} variant.\n"
PUBLIC = {
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull,
}  # cuda: the public index's build of torch, not a local one


def resolve(variant: str) -> list[str]:
    """Return NAME==VERSION of everything that the variant installs, sorted."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    index = os.environ.get("TORCH_INDEX")
    environment = os.environ | (PUBLIC if variant == "cuda" else {"PIP_EXTRA_INDEX_URL": index} if index else {})
    done = subprocess.run(
        [*command, "--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[server]"],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
    )
    found = [item["metadata"] for item in json.loads(done.stdout)["install"]]
    return sorted(f"{one['name'].lower()}=={one['version']}" for one in found if one["name"] != "pud")


if __name__ == "__main__":
    for name in sys.argv[1:] or ["cpu", "cuda"]:
        path = ROOT / "image" / f"{name}.lock"
        path.write_text(HEADER.format(name) + "\n".join(resolve(name)) + "\n")
