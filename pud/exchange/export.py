"""A model goes back: its weights in the form they came in, or as .pt2 or ONNX, each checked to give the same logits."""

import copy
import dataclasses
import html
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from pud.artifacts.model import ModelCard
from pud.base.errors import InputError
from pud.base.files import partial_folder
from pud.exchange.models import OURS, Origin, reorder, turn_channels
from pud.exchange.weights import FORMS, Weights
from pud.exchange.weights.checkpoint import write_packed
from pud.exchange.weights.exported import traced
from pud.models.contract import NORMALISER, Classifier

IMAGES, EXAMPLES = 5, 2  # random ones on which logits are compared, and with which a network is traced
SAME = 1e-5  # of logits, where the largest is above 1 times that: what weights may change on their way out and in
TRACED = 1e-4  # the same of a computation that other kernels do
OPSET = 18  # of ONNX
LONGEST = 500  # characters of a value in a model card
ONNX = ("onnx", "onnxscript", "onnxruntime")  # what it needs, the one that runs it last


def export_weights(model: Classifier, origin: Origin | None, path: Path) -> None:
    """Write a model's weights into the file ``path`` in the form that they came in; without origin as safetensors.

    Container, place, prefix, the order of outputs and of channels are the original's. What was found out here (mean and
    std) does not go along unless the file held them: who loads it normalises as before. Numbers are float32.

    Raises:
        InputError: the file, read again, does not give the model's logits.
    """
    origin = _as_is(model) if origin is None or origin.form == OURS else origin
    if len(origin.order) != model.classes:
        raise InputError(
            f"the model has {model.classes} classes, {origin.file} had {len(origin.order)}: give its own origin"
        )
    form, images = FORMS.find(origin.form), _images(model, IMAGES)
    back = sorted(range(model.classes), key=origin.order.__getitem__)
    original = copy.deepcopy(model).cpu().eval()
    reorder(original, back)
    if origin.bgr:
        turn_channels(original)
    normalised = (images - original.mean) / original.std
    normaliser = {kind: (name, _normaliser(original, kind, origin)) for kind, (name, _) in origin.normaliser.items()}
    network = _plain_network(original)
    held = {f"{origin.prefix}{name}": tensor for name, tensor in network.state_dict().items()}
    tensors = held | dict(normaliser.values())
    weights = Weights({name: _alone(one) for name, one in tensors.items()}, origin.form, origin.place, origin.about)
    with _finished(path) as partial:
        form.write(partial, weights, _placed(network, origin.prefix, normaliser), images[:EXAMPLES])
        found = form.read(partial)
        if found.place != origin.place or found.tensors.keys() != weights.tensors.keys():
            raise InputError(f"{path} cannot be written as it came: {origin.form} gives other names when read again")
        own = {name.removeprefix(origin.prefix): one for name, one in found.tensors.items() if name in held}
        network.load_state_dict(own)
        with torch.no_grad():
            given = network.double()((normalised.flip(1) if origin.bgr else normalised).double())
            _compare(given, copy.deepcopy(model).cpu().double().eval()(images.double())[:, back], SAME, path)


def export_pt2(model: Classifier, card: ModelCard, path: Path) -> None:
    """Write a model for ``torch.export.load``: any number of images (n, c, h, w) in [0, 1] in, logits out.

    The card lies beside it in the archive, as ``extra/model.json``.

    Raises:
        InputError: torch cannot export the network, or the exported one gives other logits.
    """
    images, plain = _images(model, IMAGES), _with_normaliser(model)
    with _finished(path) as partial, traced(path):
        program = torch.export.export(plain, (images[:EXAMPLES],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
        about = {"model.json": json.dumps(dataclasses.asdict(card))}
        write_packed(lambda file: torch.export.save(program, file, extra_files=about), partial)
        again = torch.export.load(partial).module()  # it was written here
        _compare(again(images), plain(images), TRACED, path)


def export_onnx(model: Classifier, card: ModelCard, path: Path) -> None:
    """Write a model as ONNX: any number of images (n, c, h, w) in [0, 1] in, logits out.

    Its metadata hold the names of the classes, in JSON.

    Raises:
        InputError: the extra onnx is missing, torch cannot export the network, or the exported one gives other logits.
    """
    runtime = _onnx_runtime()
    images, plain = _images(model, IMAGES), _with_normaliser(model)
    with _finished(path) as partial, traced(path):
        program = torch.onnx.export(
            plain,
            (images[:EXAMPLES],),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
        assert program is not None
        program.model.metadata_props["classes"] = json.dumps(list(card.classes))
        program.save(partial, external_data=False)
        session = runtime.InferenceSession(partial, providers=["CPUExecutionProvider"])
        _compare(torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), plain(images), TRACED, path)


EXPORTS: dict[str, Callable[[Classifier, ModelCard, Path], None]] = {"pt2": export_pt2, "onnx": export_onnx}


def check_formats(formats: Sequence[str]) -> None:
    """Raise InputError for a form that is unknown, or lacks what it needs: before any work."""
    for form in formats:
        if form not in EXPORTS:
            raise InputError(f"unknown form of a model {form!r}: choose of {', '.join(EXPORTS)}")
    if "onnx" in formats:
        _onnx_runtime()


def export_as(form: str, model: Classifier, card: ModelCard, folder: Path) -> Path:
    """Write a model into a folder as ``model.pt2`` or ``model.onnx``; returns the file."""
    check_formats([form])
    path = folder / f"model.{form}"
    EXPORTS[form](model, card, path)
    return path


def model_card(card: ModelCard, origin: Origin | None, facts: Mapping[str, Any]) -> str:
    """Return a model card in Markdown, for people; ``facts``: {what: value} of what was done and measured."""
    c, h, w = card.input_shape
    kind = {1: "grey", 3: "colour"}.get(c, f"{c}-channel")
    lines = [
        f"# A repaired model: {_text(card.architecture)}",
        "",
        "## What it is",
        "",
        f"A network of architecture {_text(card.architecture)} that tells {len(card.classes)} classes of {kind} "
        f"pictures of {h}x{w} pixels apart: {_text(', '.join(card.classes))}.",
        f"Pixels from 0 to 1 are normalised by mean {_numbers(card.mean)} and std {_numbers(card.std)}, red first.",
    ]
    if origin:
        lines += ["", "## What it was made from", ""]
        lines += _table({"file": origin.file, "sha256": origin.sha256, "form": origin.form, **origin.about})
        if origin.order != tuple(range(len(origin.order))):
            names = sorted(zip(origin.order, card.classes, strict=True))
            lines += ["", f"Its outputs stand for {_text(', '.join(name for _, name in names))}, in this order."]
        if origin.bgr:
            lines += ["", "As it came, it takes blue first; so do the weights that go back."]
        if origin.form != OURS and not origin.normaliser:
            lines += ["", "The file holds no mean and std: who loads the weights normalises as before."]
    digests = {f"{name} (digest)": digest for name, digest in card.made_from.items()}
    lines += [
        "",
        "## What was done, and what was measured",
        "",
        *_table({**{name: facts[name] for name in facts if name != "format"}, **digests}),
    ]
    lines += [
        "",
        "## Limits",
        "",
        "- It was searched for backdoors that relabel or alter training pictures, by what the model and the data given "
        "here show. What they do not show was not found.",
        "- Accuracy on given labels is measured on labels that may be wrong themselves.",
        "- It is meant for pictures like those it was trained on, of this size; for others nothing was measured.",
    ]
    return "\n".join(lines) + "\n"


def _onnx_runtime() -> ModuleType:
    """Return the module that runs ONNX, once all that writes it is there too."""
    for name in ONNX:
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"ONNX needs {name}: install the extra onnx (pip install 'pud[onnx]')") from error
    return module


def _as_is(model: Classifier) -> Origin:
    """Return the origin of a model that was made here: safetensors under the network's names, with its normaliser."""
    normaliser = {kind: (kind, tuple(getattr(model, kind).shape)) for kind in NORMALISER}
    return Origin("", "", model.name, "safetensors", (), "", normaliser, tuple(range(model.classes)), False, {})


def _images(model: Classifier, n: int) -> Tensor:
    return torch.rand(n, *model.input_shape, generator=torch.Generator().manual_seed(0))


def _alone(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor, contiguous, that shares its memory with no other."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _normaliser(model: Classifier, kind: str, origin: Origin) -> Tensor:
    """Return mean or std as the file had it: its shape, and blue first where its network takes that."""
    values: Tensor = getattr(model, kind)
    shape = origin.normaliser[kind][1]
    flat = (values.flip(1) if origin.bgr else values).flatten()
    return flat[: torch.Size(shape).numel()].reshape(shape)


def _plain_network(model: Classifier) -> nn.Module:
    """Return a copy of a classifier's network on the CPU with its head in its place, as its factory makes it."""
    copied = copy.deepcopy(model).cpu().eval()
    parent, _, own = copied.head_name.rpartition(".")
    setattr(copied.network.get_submodule(parent), own, copied.head)
    return copied.network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # see channels_last


class _Around(nn.Module):
    """A module that does what another one does, which it holds under a name."""

    def __init__(self, name: str, inner: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, inner)

    def forward(self, images: Tensor) -> Tensor:
        return getattr(self, self.name)(images)


def _placed(network: nn.Module, prefix: str, normaliser: Mapping[str, tuple[str, Tensor]]) -> nn.Module:
    """Return a module that holds a network under names with this prefix, behind a normaliser under names of its own."""
    root = copy.deepcopy(network)
    for name in reversed(prefix.split(".")[:-1]):
        root = _Around(name, root)
    for name, tensor in normaliser.values():
        *parents, own = name.split(".")
        owner = root
        for parent in parents:
            if not hasattr(owner, parent):
                owner.add_module(parent, nn.Module())
            owner = owner.get_submodule(parent)
        owner.register_buffer(own, tensor.detach().clone())
    if normaliser:
        mean, std = (normaliser[kind][0] for kind in NORMALISER)

        def normalise(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return ((inputs[0] - _column(module.get_buffer(mean))) / _column(module.get_buffer(std)),)

        root.register_forward_pre_hook(normalise)
    return root.eval()


def _column(values: Tensor) -> Tensor:
    return values.reshape(1, -1, 1, 1)


def _with_normaliser(model: Classifier) -> nn.Module:
    """Return a classifier as one plain module that takes images in [0, 1]."""
    normaliser = {kind: (kind, getattr(model, kind).cpu()) for kind in NORMALISER}
    return _placed(_plain_network(model), "network.", normaliser)


@contextmanager
def _finished(path: Path) -> Iterator[Path]:
    """Yield the name of a file that takes the place of ``path`` only when the block ends without an error."""
    with partial_folder(path.with_name("model")) as folder:  # a name that is as long as may be takes no ending
        partial = folder / path.name
        yield partial
        partial.replace(path)


def _compare(given: Tensor, expected: Tensor, rounding: float, path: Path) -> None:
    largest = max(1.0, float(expected.abs().max()))
    if given.shape != expected.shape or not (given - expected).abs().max() <= rounding * largest:
        raise InputError(f"{path} was not kept, for read again it gives other logits than the model: take another form")


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _text(value: object) -> str:
    """Return a value as one line in which neither HTML nor Markdown means anything: it may come from a stranger."""
    line = " ".join(re.sub(r"[^\x20-\x7e\u00a0-\u1fff\u3000-\ud7ff]", " ", str(value)).split())[:LONGEST]
    return re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", html.escape(line, quote=False))


def _table(rows: Mapping[str, Any]) -> list[str]:
    lines = [f"| {_text(name)} | {_text(_words(value))} |" for name, value in rows.items()]
    return ["| what | value |", "|---|---|", *lines]


def _words(value: Any) -> str:
    """Return a value of JSON in words."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_words(one)}" for name, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
