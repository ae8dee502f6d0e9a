"""What all pipelines share: the rounds of the DAG, where tasks run, and how a pipeline is compiled."""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components.adversarial_probe import adversarial_probe
from components.conclude import conclude
from components.detect import detect
from components.purify import purify
from pipelines.placement import on_cpu_pool, on_gpu_pool
from pud import defences, detectors
from pud.adversarial.robustness import EvaluateConfig
from pud.base.config import as_parameters
from pud.defences.pud import DEFAULT_PRESET, PRESETS
from pud.detectors.pud import DetectConfig
from pud.evidence.probing import ProbeConfig
from pud.models.training import TrainConfig
from pud.reporting.report import INFECTED, PURIFIED, ROUND

ROUNDS = int(os.environ.get("ROUNDS", len(PRESETS[DEFAULT_PRESET].keep)))  # make compile ROUNDS=5

# The settings of a step are one parameter; what a caller leaves out keeps the default of its config.
TRAIN, PROBE, EVALUATE = as_parameters(TrainConfig()), as_parameters(ProbeConfig()), as_parameters(EvaluateConfig())
DETECT = {"detector": detectors.DEFAULT, **as_parameters(DetectConfig())}
PURIFY = {"defence": defences.DEFAULT, "preset": DEFAULT_PRESET}
GPU_TOLERATIONS = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


@dataclass(frozen=True)
class Rounds:
    """probe -> detect -> purify, again and again; what is the same in every round.

    network: the settings of which ``architecture`` may name code. cpu, gpu: the arguments of ``on_cpu_pool`` and
    ``on_gpu_pool`` behind the task.
    """

    dataset: Any
    network: Any
    probe_settings: Any
    detect_settings: Any
    seed: Any
    device: Any
    cpu: tuple[Any, ...]
    gpu: tuple[Any, ...]

    def assess(self, model: Any, infected_probe: Any = None, after: Any = None) -> tuple[Any, Any]:
        """Return the probe of a model, once a task ``after`` which it waits is done, and the detection from it."""
        probed = adversarial_probe(
            model=model,
            dataset=self.dataset,
            train_settings=self.network,
            settings=self.probe_settings,
            seed=self.seed,
            device=self.device,
        )
        placed = on_gpu_pool(probed, *self.gpu)
        probe = (placed.after(after) if after else placed).outputs["probe"]
        detected = detect(infected_probe=infected_probe or probe, probe=probe, settings=self.detect_settings)
        return probe, on_cpu_pool(detected, *self.cpu).outputs["detection"]

    def run(self, model: Any, purify_settings: Any, measure: Callable[..., Any]) -> dict[str, Any]:
        """Purify a model round by round, and measure it before, after each and at the end, where it is judged again.

        Returns what is there at the end: purified (a model), infected_probe, probe, detection and report.
        """
        measured, infected_probe = measure(INFECTED, model), None
        for _ in range(ROUNDS):
            # a round begins when the one before is measured, so that who watches sees each as it ends
            probe, detection = self.assess(model, infected_probe, measured)
            infected_probe = infected_probe or probe
            purified = purify(
                model=model,
                dataset=self.dataset,
                detection=detection,
                train_settings=self.network,
                settings=purify_settings,
                seed=self.seed,
                device=self.device,
            )
            model = on_gpu_pool(purified, *self.gpu).outputs["purified"]
            measured = measure(ROUND, model, detection=detection, previous_report=measured.outputs["report"])
        probe, detection = self.assess(model, infected_probe, measured)
        measured = measure(PURIFIED, model, detection=detection, previous_report=measured.outputs["report"])
        return {
            "purified": model,
            "infected_probe": infected_probe,
            "probe": probe,
            "detection": detection,
            "report": measured.outputs["report"],
        }

    def conclude(self, kind: str, model: Any, last: dict[str, Any], command: Any, tracking: Any) -> Any:
        """Return what is concluded of a model as it was given from what ``run`` returns; recorded with the run."""
        concluded = conclude(
            kind=kind,
            model=model,
            dataset=self.dataset,
            command=command,
            job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            job_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
            tracking=tracking,
            **last,
        )
        return on_cpu_pool(concluded, *self.cpu, cached=False).outputs["findings"]


def compile_to(pipeline: Any, path: Path) -> None:
    """Write a compiled pipeline; without KFP's header, whose order of defaults changes from process to process."""
    compiler.Compiler().compile(pipeline, str(path))
    lines = path.read_text().splitlines(keepends=True)
    start = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    path.write_text(f"# Compiled from pipelines/{pipeline.name}.py by `make compile`.\n" + "".join(lines[start:]))


def main(pipeline: Any, compiled: Path) -> None:
    """Compile a pipeline to where the command line says."""
    parser = argparse.ArgumentParser(description=f"Compile the pipeline {pipeline.name}.")
    parser.add_argument("out", nargs="?", type=Path, default=compiled)
    compile_to(pipeline, parser.parse_args().out)
