"""What ``test_bare_environment`` runs in an interpreter with few packages: import the library, then defend with it.

Arguments: the folder that stands for site-packages, the checkout, a data set folder, an empty folder to work in.
"""

import contextlib
import importlib
import io
import json
import pkgutil
import sys
from pathlib import Path

PACKAGES, CHECKOUT, DATA, WORK = sys.argv[1:]
sys.path[:0] = [CHECKOUT, PACKAGES]
# what people read of a run, the local Kubeflow runner, the cluster: these ask for more, by name
MORE = ("pud.reporting.plots", "pud.reporting.registry", "pud.reporting.tracking", "pud.platform.cluster")


def import_all() -> list[str]:
    """Import every module of pud but those in MORE and return their names."""
    package = importlib.import_module("pud")
    found = [one.name for one in pkgutil.walk_packages(package.__path__, "pud.")]
    wanted = [name for name in found if not name.startswith(MORE)]
    for name in wanted:
        importlib.import_module(name)
    return wanted


def defend() -> dict[str, object]:
    """Poison, train, probe, detect, purify and evaluate through the command line; return the report."""
    from pud.platform.cli import app

    def pud(*arguments: str) -> None:
        app(list(arguments), standalone_mode=False)

    work = Path(WORK)
    dataset, truth = str(work / "dataset"), str(work / "truth")
    models = [str(work / f"model-{index}") for index in range(2)]
    probes = [str(work / f"probe-{index}") for index in range(2)]
    reports = [str(work / f"report-{index}") for index in range(2)]
    detection = str(work / "detection")
    few = ("--pgd-images", "20", "--pgd-steps", "3", "--masking-images", "0", "--drift-images", "20")
    pud("poison", "--data-uri", DATA, "--dataset", dataset, "--ground-truth", truth, "--train-size", "300")
    pud("train", "--dataset", dataset, "--model", models[0], "--epochs", "2")
    pud("probe", "--model", models[0], "--dataset", dataset, "--out", probes[0])
    pud("detect", "--infected-probe", probes[0], "--probe", probes[0], "--detection", detection)
    given = ("--model", models[0], "--dataset", dataset, "--detection", detection)
    pud("purify", *given, "--out", models[1], "--epochs", "[1]")
    pud("probe", "--model", models[1], "--dataset", dataset, "--out", probes[1])
    pud("detect", "--infected-probe", probes[0], "--probe", probes[1], "--detection", str(work / "after"))
    about = ("--dataset", dataset, "--ground-truth", truth, *few)
    pud("evaluate", "--stage", "infected", "--model", models[0], *about, "--report", reports[0])
    last = ("--model", models[1], "--detection", str(work / "after"), "--previous-report", reports[0])
    pud("evaluate", "--stage", "purified", *last, *about, "--autoattack-images", "0", "--report", reports[1])
    report: dict[str, object] = json.loads((Path(reports[1]) / "report.json").read_text())
    return report


def refused() -> str:
    """Return what is said where AutoAttack is asked for and is not installed."""
    from pud.adversarial.robustness import check_attacks
    from pud.base.errors import InputError

    try:
        check_attacks(autoattack=True)
    except InputError as error:
        return str(error)
    return ""


def run() -> str:
    """Return what ``pud run`` says, which needs more."""
    from pud.platform.cli import main

    sys.argv = ["pud", "run", "--no-tracking", "--data-uri", DATA]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main()
    return said.getvalue()


result = {
    "modules": import_all(),
    "report": defend(),
    "refused": refused(),
    "run": run(),
    "loaded": sorted(sys.modules),
}
print(json.dumps(result))
