"""Networks of torchvision and timm by name: without pretrained weights, for any number of channels and classes.

Both libraries are optional, and imported only when a name of theirs is used. Nothing is downloaded.
"""

import importlib
from collections.abc import Sequence
from types import ModuleType

from torch import nn

from pud.base.errors import InputError
from pud.models.contract import Factory

LIBRARIES = ("torchvision", "timm")
# what two of torchvision's networks would give beside the logits while they train
NO_SIDE_OUTPUTS = {"googlenet", "inception_v3"}


def zoo_factory(library: str, name: str) -> Factory:
    """Return what makes a library's network.

    Raises:
        InputError: the library is not installed or has no such network.
    """
    try:
        module = importlib.import_module("torchvision.models" if library == "torchvision" else library)
    except ImportError as error:
        raise InputError(
            f"architecture {library}:{name} needs {library}, which cannot be imported here ({error}): install the "
            "extra zoo (pip install 'pud[zoo]'; in a clone make setup-zoo, which makes .venv-zoo)"
        ) from error
    if name.partition(".")[0] not in module.list_models():
        raise InputError(f"{library} has no network {name!r}: choose one that {library}'s list_models() gives")
    return _torchvision(module, name) if library == "torchvision" else _timm(module, name)


def _torchvision(models: ModuleType, name: str) -> Factory:
    def factory(input_shape: Sequence[int], classes: int) -> nn.Module:
        channels, height, width = input_shape
        options: dict[str, object] = {"aux_logits": False, "init_weights": True} if name in NO_SIDE_OUTPUTS else {}
        builder = models.get_model_builder(name)
        if name.startswith("vit_") and height == width:
            options["image_size"] = height
        return _taking(builder(weights=None, num_classes=classes, **options), channels)

    return factory


def _taking(network: nn.Module, channels: int) -> nn.Module:
    """Return the network with a new first convolution where it takes another number of channels."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels != channels:
                parent, _, own = name.rpartition(".")
                first = nn.Conv2d(
                    channels,
                    module.out_channels,
                    module.kernel_size,  # type: ignore[arg-type]
                    module.stride,  # type: ignore[arg-type]
                    module.padding,  # type: ignore[arg-type]
                    bias=module.bias is not None,
                )
                setattr(network.get_submodule(parent), own, first)
            break
    return network


def _timm(timm: ModuleType, name: str) -> Factory:
    def factory(input_shape: Sequence[int], classes: int) -> nn.Module:
        channels, *size = input_shape
        options = {"pretrained": False, "num_classes": classes, "in_chans": channels}
        try:
            return timm.create_model(name, img_size=tuple(size), **options)
        except TypeError:  # most convolutional networks take any size, and no img_size
            return timm.create_model(name, **options)

    return factory
