"""A stranger's model comes in: from a file of weights, or a folder of ours, to a classifier that knows its data."""

import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import nn

from pud.artifacts.model import FORMAT as MODEL
from pud.artifacts.model import ModelCard, load_model, unusable
from pud.base.errors import InputError
from pud.base.files import read_json, sha256, write_json
from pud.base.progress import say
from pud.data.batches import COLOURS
from pud.data.images import TRAINING, UNLABELLED, LabelledImages
from pud.exchange.fitting import Fit, fit, nearest, shapes, shapes_of
from pud.exchange.sanity import (
    Sanity,
    check_model,
    find_normalisation,
    flags,
    most_certain_normalisation,
    normalise,
)
from pud.exchange.weights import Weights, read_weights
from pud.models.contract import NORMALISER, Classifier
from pud.models.inference import logits
from pud.models.make import check_architecture, make_model

FORMAT = "pud-origin/1"
FILE = "origin.json"
OURS = "model folder"  # the form of a model that was taken as it is
LEAST_LIKE = 0.05  # share of a file's weights that fit a network, so that naming it helps anybody
TRIED_CLASSES = 7  # of networks that are made only to see which weights of a file would differ for another number


@dataclass(frozen=True)
class ModelConfig:
    """What a file of weights does not say of its model; all that is left empty is found out, and said."""

    architecture: Annotated[str, "Empty: the one that the weights fit; see pud/models/make.py for names."] = ""
    classes: Annotated[tuple[str, ...], "In the order of the model's outputs. Empty: as in the data set."] = ()
    mean: Annotated[tuple[float, ...], "Of pixels from 0 to 1, red first. Empty: the usual ones are tried."] = ()
    std: Annotated[tuple[float, ...], "Of pixels from 0 to 1, red first. Empty: the usual ones are tried."] = ()
    bgr: Annotated[bool, "The model takes blue first, as OpenCV reads pictures."] = False

    def __post_init__(self) -> None:
        if self.architecture:
            check_architecture(self.architecture)
        if bool(self.mean) != bool(self.std):
            raise InputError("mean and std belong together: give both, or leave out both and let them be found out")
        if any(value <= 0 for value in self.std):
            raise InputError(f"std {list(self.std)} must be above 0: give the standard deviation of each channel")


@dataclass(frozen=True)
class Origin:
    """What a model was when it came, so that it can go back so: ``origin.json`` beside ``model.json``.

    Args:
        file, sha256: the name of its file, and its digest.
        architecture: as named by the user, or as found to fit.
        form, place, about: as in ``pud.exchange.weights.Weights``.
        prefix: what stands before the network's own name of every weight, ``module.`` and such.
        normaliser: {"mean" or "std": (name in the file, its shape)} where the file holds them.
        order: for each class of the data set, in its order, the number of the output that stood for it in the file.
        bgr: whether the network in the file takes blue first.
    """

    file: str
    sha256: str
    architecture: str
    form: str
    place: tuple[str, ...]
    prefix: str
    normaliser: dict[str, tuple[str, tuple[int, ...]]]
    order: tuple[int, ...]
    bgr: bool
    about: dict[str, str | int]


@dataclass(frozen=True)
class Received:
    """A model that came in: in evaluation mode, on the device; classes and channels are in the order of the data."""

    model: Classifier
    card: ModelCard
    origin: Origin
    sanity: Sanity


def receive_model(
    path: Path, split: LabelledImages, config: ModelConfig, *, seed: int, device: torch.device
) -> Received:
    """Return the model in a file of weights, or in a model folder of ours, that knows the training images in ``split``.

    Raises:
        InputError: the file cannot be read or used, fits no architecture (the nearest is named), belongs to other
            data, or the model is at chance; the sentence names the setting that mends it, where one does.
    """
    path = Path(path)
    model, card, origin = _ours(path, split, config, device) if path.is_dir() else _theirs(path, split, config, seed)
    model = model.eval().to(device)
    if not path.is_dir() and not config.mean and not origin.normaliser:
        found, _ = find_normalisation(model, split, seed=seed, device=device)
        normalise(model, found.mean, found.std)
        card = _with_normaliser(card, model)
        say(f"receive: of the usual normalisations the model takes {found.whose} best ({flags(found)})")
    sanity = check_model(model, split, seed=seed, device=device, classes=config.classes, bgr=config.bgr)
    whose = "its training" if split.pictures == TRAINING else "these"
    known = f"{path} gives {100 * sanity.accuracy:.1f} % of {whose} images their label"
    if sanity.at_chance or (not sanity.known and sanity.remedy):
        remedy = sanity.remedy or "give the data it was trained on, or its architecture, for another may fit as well"
        raise InputError(f"{known}, where always naming one class would give {100 * sanity.chance:.1f} %: {remedy}")
    say(f"receive: {known}" + (f"; {sanity.remedy}" if sanity.remedy else ""))
    return Received(model, card, origin, sanity)


def receive_unlabelled(
    path: Path, images: np.ndarray, config: ModelConfig, *, seed: int, device: torch.device
) -> tuple[Classifier, ModelCard, Origin, np.ndarray]:
    """Return a model as ``receive_model`` does, what it is, and the label that it gives to each image, int64 (n,).

    Its classes are its own, or ``config.classes``; whether it knows the images, uint8 (n, c, h, w), nobody can tell. A
    normalisation that nobody states is the usual one by which it is surest that they differ.

    Raises:
        InputError: as there; also where the model gives every image one label.
    """
    path = Path(path)
    classes = _classes(path, images.shape[1:], config)
    split = LabelledImages(images, np.zeros(len(images), np.int64), classes, "", "", pictures=UNLABELLED)
    model, card, origin = _ours(path, split, config, device) if path.is_dir() else _theirs(path, split, config, seed)
    model = model.eval().to(device)
    if not path.is_dir() and not config.mean and not origin.normaliser:
        found, _ = most_certain_normalisation(model, images, seed=seed, device=device)
        normalise(model, found.mean, found.std)
        card = _with_normaliser(card, model)
        say(
            "receive: the normalisation is not stated, and without labels it cannot be tried: the model is surest with "
            f"{found.whose} ({flags(found)}), which is taken; give --mean and --std if it has others"
        )
    labels = logits(model, images, device).argmax(1).numpy()
    if len(given := np.unique(labels)) < 2:
        raise InputError(
            f"{path} gives all {len(labels):,} pictures one class, {classes[given[0]]}, and so tells nothing of them: "
            "give its own normalisation (--mean, --std, --bgr), or pictures of more classes"
        )
    return model, card, origin, labels


def _classes(path: Path, shape: Sequence[int], config: ModelConfig) -> tuple[str, ...]:
    """Return the classes of a model: as the user or model.json names them, else numbers.

    Raises:
        InputError: how many there are is not seen in the weights.
    """
    if path.is_dir():
        content = read_json(path / "model.json", MODEL, classes=list, input_shape=list)
        if content["input_shape"] != list(shape):
            raise InputError(
                f"the model in {path} takes images {content['input_shape']} and the pictures are {list(shape)} "
                "(channels, height, width): import them in its size and colours (pud import --size, --channels)"
            )
        return tuple(map(str, content["classes"]))
    if config.classes:
        return tuple(config.classes)
    weights, own = read_weights(path), config.architecture
    found = shapes(weights.tensors)
    if own:
        name, near = own, fit(found, shapes_of(own, shape, TRIED_CLASSES, may_import=True), shape[0])
    else:
        name, near = nearest(found, shape, TRIED_CLASSES, _hints(path, weights))
    heads = {theirs[0] for theirs, ours in near.misshapen.values() if theirs[1:] == ours[1:]}
    if near.missing or near.other or len(heads) > 1:
        raise InputError(
            f"how many classes the model in {path} tells apart is not seen in its weights ({name} is nearest): give "
            "--classes, its names for them in their order, or its --architecture"
        )
    return tuple(map(str, range(next(iter(heads), TRIED_CLASSES))))


def _ours(
    path: Path, split: LabelledImages, config: ModelConfig, device: torch.device
) -> tuple[Classifier, ModelCard, Origin]:
    """Return the model in a folder of ours, which says itself what it is."""
    if config.classes or config.mean or config.bgr:
        raise InputError(
            f"{path} is a model folder, in which model.json says classes, mean and std: correct them there, and give "
            "no flags for them"
        )
    model, card = load_model(path, device, architecture=config.architecture or None)
    if card.input_shape != list(split.images.shape[1:]) or tuple(card.classes) != split.classes:
        raise InputError(
            f"the model in {path} takes images {card.input_shape} of the classes {', '.join(card.classes)}, the data "
            f"set has {list(split.images.shape[1:])} of {', '.join(split.classes)}: give the data that it was trained "
            "on, its classes in the same order"
        )
    digest = sha256(path / "model.safetensors")
    own = load_origin(path)
    order = tuple(range(len(card.classes)))
    plain = Origin("model.safetensors", digest, card.architecture, OURS, (), "", {}, order, False, {})
    return model, card, own or plain


def _theirs(path: Path, split: LabelledImages, config: ModelConfig, seed: int) -> tuple[Classifier, ModelCard, Origin]:
    """Return the model whose weights are in a file; where its normalisation is not known, none is in it."""
    shape, k = split.images.shape[1:], len(split.classes)
    if config.bgr and shape[0] != COLOURS:
        raise InputError(f"bgr is of pictures of {COLOURS} channels, the data set has {shape[0]}: leave it out")
    order = _order(config.classes, split.classes)
    weights = read_weights(path)
    architecture, found = _architecture(path, weights, config, shape, k)
    mean, std = (config.mean, config.std) if config.mean else ((0.0,), (1.0,))
    model = make_model(architecture, shape, k, mean, std, seed=seed, may_import=bool(config.architecture))
    normalise(model, mean, std)  # a number for each channel
    _load(path, model, weights, found, with_normaliser=not config.mean)
    reorder(model, order)
    if config.bgr:
        turn_channels(model)
        if found.normaliser and not config.mean:  # that of the file takes blue first too
            model.mean, model.std = model.mean.flip(1), model.std.flip(1)
    normaliser = {kind: (name, tuple(weights.tensors[name].shape)) for kind, name in found.normaliser.items()}
    origin = Origin(
        file=path.name,
        sha256=sha256(path),
        architecture=architecture,
        form=weights.form,
        place=weights.place,
        prefix=found.prefix,
        normaliser=normaliser,
        order=order,
        bgr=config.bgr,
        about=weights.about,
    )
    made_from = {"weights": origin.sha256}
    card = ModelCard(architecture, list(shape), list(split.classes), [], [], {}, made_from)
    return model, _with_normaliser(card, model), origin


def _with_normaliser(card: ModelCard, model: Classifier) -> ModelCard:
    return dataclasses.replace(card, mean=model.mean.flatten().tolist(), std=model.std.flatten().tolist())


def _order(given: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Return for each class of the data the number of the output that was said to stand for it."""
    if given and sorted(given) != sorted(classes):
        odd = sorted({*given} ^ {*classes}) or sorted({name for name in given if list(given).count(name) > 1})
        raise InputError(
            f"classes has {len(given)} names, the data set {len(classes)}, and {', '.join(map(repr, odd[:5]))} is not "
            "once in both: give each class of the data set once, in the order of the model's outputs"
        )
    return tuple(list(given).index(name) for name in classes) if given else tuple(range(len(classes)))


def _architecture(
    path: Path, weights: Weights, config: ModelConfig, shape: Sequence[int], classes: int
) -> tuple[str, Fit]:
    """Return the architecture that the weights fit, and how.

    Raises:
        InputError: they fit none, or not the one that was given; the nearest one is named.
    """
    found, hints = shapes(weights.tensors), _hints(path, weights)
    if config.architecture:
        name = config.architecture
        own = fit(found, shapes_of(name, shape, classes, may_import=True), shape[0])
        if own.exact:
            return name, own
        near, best = nearest(found, shape, classes, hints)
        better = (
            f"they fit {near}" if best.exact else f"{near} is nearest, with {100 * best.share:.0f} % of its weights"
        )
        if best.share <= own.share:
            better = f"{100 * own.share:.0f} % of its weights do, and no other network here is nearer"
        raise InputError(f"the weights in {path} do not fit {name} ({own.reason(classes)}): {better}")
    near, best = nearest(found, shape, classes, hints)
    if not best.exact:
        near_enough = best.share >= LEAST_LIKE
        nearest_one = f"{near} is nearest, with {100 * best.share:.0f} % of its weights ({best.reason(classes)})"
        raise InputError(
            f"the weights in {path} fit no network here{f'; {nearest_one}' if near_enough else ''}: give its "
            "--architecture, torchvision:NAME, timm:NAME or your own package.module:factory"
        )
    say(f"receive: the weights are those of architecture {near}")
    return near, best


def _hints(path: Path, weights: Weights) -> list[str]:
    """Return what the file says of its architecture: in words of its own, or by its name."""
    return [str(value).lower() for value in (*weights.about.values(), path.stem)]


def _load(path: Path, model: Classifier, weights: Weights, found: Fit, *, with_normaliser: bool) -> None:
    """Copy weights from a file into a model.

    Raises:
        InputError: they are not finite, or a variance is below 0.
    """
    state = model.state_dict()
    for own, theirs in model.names_in_network().items():
        name = found.normaliser.get(own, "") if own in NORMALISER else f"{found.prefix}{theirs}"
        if name in weights.tensors and (own not in NORMALISER or with_normaliser):
            tensor = weights.tensors[name]
            state[own].copy_(tensor.reshape(1, -1, 1, 1).expand_as(state[own]) if own in NORMALISER else tensor)
    names = model.names_in_network()
    if bad := unusable({names[own]: tensor for own, tensor in state.items()}):
        raise InputError(
            f"{path}: weight {found.prefix}{bad} holds NaN, infinity or a variance below 0: this model cannot be used"
        )


def reorder(model: Classifier, order: Sequence[int]) -> None:
    """Put the outputs of a model into another order, in place: the new output i is the old one ``order[i]``."""
    for own in model.head.parameters():
        own.data = own.data[list(order)]


@torch.no_grad()
def turn_channels(model: Classifier) -> None:
    """Make a network that takes blue first one that takes red first, or the other way round, in place.

    Raises:
        InputError: no convolution takes its images, or something beside it does.
    """
    images = torch.rand(2, *model.input_shape, generator=torch.Generator().manual_seed(0)).to(model.mean.device)
    was_training = model.training
    expected = model.eval().network(images.flip(1))
    for module in model.network.modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == COLOURS and module.groups == 1:
            module.weight.copy_(module.weight.flip(1))
            break
    if not torch.allclose(model.network(images), expected, rtol=1e-4, atol=1e-5):
        raise InputError(f"{model.name} cannot be made to take red first: let the network itself turn its images")
    model.train(was_training)


def save_origin(folder: Path, origin: Origin) -> None:
    """Write ``origin.json`` into a model folder."""
    write_json(folder / FILE, {"format": FORMAT, **dataclasses.asdict(origin)})


def load_origin(folder: Path) -> Origin | None:
    """Return what ``save_origin`` wrote, None for a model that was made here.

    Raises:
        InputError: the file is corrupt.
    """
    if not (folder / FILE).is_file():
        return None
    kinds = {name: typing.get_origin(kind) or kind for name, kind in typing.get_type_hints(Origin).items()}
    lists = {name: list if kind is tuple else kind for name, kind in kinds.items()}
    content = read_json(folder / FILE, FORMAT, **lists)
    try:
        normaliser = {
            kind: (str(name), tuple(map(int, shape))) for kind, (name, shape) in content["normaliser"].items()
        }
        order = tuple(map(int, content["order"]))
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder / FILE} is corrupt ({error}): receive the model again") from error
    named = Path(content["file"]).name == content["file"]  # else it would be written elsewhere
    if not named or sorted(order) != list(range(len(order))) or set(normaliser) - set(NORMALISER):
        raise InputError(f"{folder / FILE} is corrupt: receive the model again")
    place = tuple(map(str, content["place"]))
    given = {name: content[name] for name in kinds}
    return Origin(**{**given, "place": place, "normaliser": normaliser, "order": order})
