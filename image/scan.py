"""Look for secrets and for the tests' data in every file of an image, and write what was found, with its size.

docker export CONTAINER | python image/scan.py OUT.json; the exit code is 1 if something was found.
"""

import hashlib
import json
import re
import sys
import tarfile
from pathlib import Path
from typing import IO, Any

SECRETS = {
    "a private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[\w+/=]{40}"),
    "an access key of AWS": re.compile(rb"\bAKIA(?!\w*EXAMPLE)[0-9A-Z]{16}\b"),
}
IN_URL = re.compile(rb"://[^\s/:@'\"`<>(){}\[\]$%*]+:[^\s/:@'\"`<>(){}\[\]$%*]+@[\w.-]")
SELF_TEST = re.compile(r"^usr/lib/.*\.so[.\d]*$")  # the distribution's cryptography holds the keys of its self-tests
FOREIGN = re.compile(r"^usr/|^opt/pud/lib/python[\d.]+/site-packages/(?!pud/)")  # whose documentation shows such URLs


def scan(export: IO[bytes], forbidden: dict[str, str]) -> dict[str, Any]:
    """Return the number of files, their bytes, and what is wrong with which.

    Args:
        export: an uncompressed tar archive, read as a stream.
        forbidden: names of files that must not be there under any name, by the sha256 of their content.
    """
    files, size, found = 0, 0, []
    with tarfile.open(fileobj=export, mode="r|") as archive:
        for member in archive:
            if not member.isfile():
                continue
            content = archive.extractfile(member).read()
            files, size = files + 1, size + len(content)
            patterns = {} if SELF_TEST.search(member.name) else SECRETS
            kinds = [kind for kind, pattern in patterns.items() if pattern.search(content)]
            if not FOREIGN.search(member.name) and IN_URL.search(content):
                kinds.append("a password in a URL")
            if name := forbidden.get(hashlib.sha256(content).hexdigest()):
                kinds.append(f"the tests' {name}")
            found += [f"{member.name} holds {kind}" for kind in kinds]
    return {"files": files, "bytes": size, "found": found}


def digests(folder: Path) -> dict[str, str]:
    """Return the names of the files in a folder by the sha256 of their content."""
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    result = scan(sys.stdin.buffer, digests(Path(__file__).parents[1] / "tests" / "data"))
    Path(sys.argv[1]).write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['bytes'] / 1e6:.0f} MB in {result['files']} files", *result["found"], sep="\n")
    sys.exit(bool(result["found"]))
