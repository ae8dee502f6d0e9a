"""Print what an image holds as JSON, for image/sbom.py: docker run -i IMAGE python3 - < image/inventory.py"""

import importlib.metadata
import json
import platform
import subprocess
import sys

FORMAT = "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\n"

# beside those of the virtual environment: pip and what else came with the base image's interpreter
base = f"{sys.base_prefix}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
distributions = importlib.metadata.distributions(path=[*sys.path, base])
listing = subprocess.run(["dpkg-query", "--show", f"--showformat={FORMAT}"], check=True, capture_output=True, text=True)
debian = [line.split("\t") for line in listing.stdout.splitlines()]
print(
    json.dumps(
        {
            "interpreter": platform.python_version(),
            "python": sorted({(one.name, one.version) for one in distributions if one.name != "pud"}),
            "release": platform.freedesktop_os_release()["VERSION_CODENAME"],
            "debian": [package for status, *package in debian if status == "installed"],
        }
    )
)
