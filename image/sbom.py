"""Write an image's bill of materials (CycloneDX): its Python and Debian packages, and the interpreter.

python image/sbom.py IMAGE OUT.json < INVENTORY, what image/inventory.py printed in IMAGE. The same image gives the same
bytes; a bill that CycloneDX's own schema refuses is not written.
"""

import json
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

SCHEMA = SchemaVersion.V1_6
Component = dict[str, str]


def component(kind: str, purl: PackageURL, **more: str) -> Component:
    """Return a component of CycloneDX, known by its package URL."""
    about = {"bom-ref": str(purl), "type": kind, "name": purl.name, "version": purl.version, "purl": str(purl)}
    return about | more


def interpreter(version: str) -> Component:
    """Return the Python that the base image brings, in its official build from no package."""
    cpe = f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"
    return component("platform", PackageURL("generic", None, "cpython", version), cpe=cpe)


def python_package(name: str, version: str) -> Component:
    """Return a package of PyPI."""
    return component("library", PackageURL("pypi", None, name, version))


def debian_package(name: str, version: str, architecture: str, release: str) -> Component:
    """Return a package of a Debian release."""
    return component("library", PackageURL("deb", "debian", name, version, {"arch": architecture, "distro": release}))


def bill_of(inventory: dict[str, Any], image: str) -> dict[str, Any]:
    """Return the bill of all that an image holds.

    Raises:
        ValueError: it is not valid.
    """
    name, _, version = image.rpartition(":")
    components = [
        interpreter(inventory["interpreter"]),
        *(python_package(*package) for package in inventory["python"]),
        *(debian_package(*package, inventory["release"]) for package in inventory["debian"]),
    ]
    parts = [one["bom-ref"] for one in components]
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SCHEMA.to_version(),
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": image, "name": name, "version": version}},
        "components": components,
        "dependencies": [{"ref": image, "dependsOn": parts}, *({"ref": part} for part in parts)],
    }
    if wrong := JsonStrictValidator(SCHEMA).validate_str(json.dumps(bill)):
        raise ValueError(f"the bill of materials is not valid: {str(wrong)[:200]}")
    return bill


if __name__ == "__main__":
    bill = bill_of(json.load(sys.stdin), sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps(bill, indent=2) + "\n")
