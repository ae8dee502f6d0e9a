"""A copy of a classifier that costs less to run and to attack: batch norms folded into the convolutions before them."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from pud.models.contract import Classifier, M, channels_last

CHECKED_IMAGES = 2
ROUNDING = 1e-3  # relative to the largest logit: what folding may change at most
FOLDING = "folding"  # the attribute of a folded copy that says how to bring it up to date
Pair = tuple[str, str]


def fold_batchnorm(model: M) -> M:
    """Return a copy in evaluation mode for inference and attacks, without weight gradients, channels last.

    A classifier's batch norms that alone take what a convolution (or a linear layer) gives are folded into it, so that
    input gradients cost about half. The copy gives the same logits up to rounding: that is tried on random images, and
    where it is not so, or where the flow of the network's data cannot be traced, nothing is folded.
    """
    copied = _evaluating(model)
    if not isinstance(copied, Classifier):
        return copied
    assert isinstance(model, Classifier)
    folding = _Folding(copied, model, [])
    if pairs := _foldable(copied):
        images = torch.rand(CHECKED_IMAGES, *model.input_shape, generator=torch.Generator().manual_seed(0))
        images = images.to(model.mean.device)
        with torch.no_grad():
            expected = copied(images)
            folding = _fold(copied, model, pairs)
            right = (copied(images) - expected).abs().max() <= ROUNDING * expected.abs().max()
        if not right:
            copied = _evaluating(model)
            folding = _Folding(copied, model, [])
    setattr(copied, FOLDING, folding)
    return copied


@torch.no_grad()
def update_folded(folded: Classifier, model: Classifier) -> None:
    """Bring a copy, made by ``fold_batchnorm`` of this model or of one of its kind, up to date with it, in place.

    Raises:
        ValueError: a parameter or buffer of the model was not there, or had another shape, when the copy was made.
    """
    folding = getattr(folded, FOLDING, None)
    if not isinstance(folding, _Folding):
        raise ValueError("this classifier was not made by fold_batchnorm, or is a copy of one that was: fold again")
    if not folding.reads(model):
        folding = _Folding(folded, model, folding.pairs, folding.shapes)
        setattr(folded, FOLDING, folding)
    folding.update()


class _Folding:
    """Which tensors of a model go where in its folded copy, as lists that few kernels work off.

    Args:
        pairs: names of a convolution and of the batch norm that is folded into it.
        shapes: by name, of all tensors that the model may have; None: of those that it has.
    """

    def __init__(
        self, folded: Classifier, model: Classifier, pairs: Sequence[Pair], shapes: dict[str, torch.Size] | None = None
    ) -> None:
        tensors = _tensors(model)
        found = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes is not None and (others := sorted(name for name, _ in found.items() ^ shapes.items())):
            raise ValueError(
                f"the folded copy does not hold what the model has in {', '.join(dict.fromkeys(others))}: fold it again"
            )
        self.pairs, self.shapes, self.sources = list(pairs), found, list(tensors.values())
        self.source_shapes = list(found.values())
        places = _tensors(folded)
        layers, norms = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        of_pairs = {f"{layer}.{name}" for layer in layers for name in ("weight", "bias")}
        of_pairs |= {name for name in tensors if name.rpartition(".")[0] in set(norms)}
        whole = [name for name in tensors if name not in of_pairs]
        self.copies = [
            ([places[name] for name in names], [tensors[name] for name in names])
            for dtype in {tensors[name].dtype for name in whole}
            if (names := [name for name in whole if tensors[name].dtype == dtype])
        ]
        self.to_weights = [places[f"{layer}.weight"] for layer in layers]
        self.to_biases = [places[f"{layer}.bias"] for layer in layers]
        self.weights = [tensors[f"{layer}.weight"] for layer in layers]
        self.factor_shapes = [(-1, *[1] * (weight.ndim - 1)) for weight in self.weights]
        self.means = [tensors[f"{norm}.running_mean"] for norm in norms]
        self.variances = [tensors[f"{norm}.running_var"] for norm in norms]
        self.epsilons = [float(model.get_submodule(norm).eps) for norm in norms]  # type: ignore[arg-type]
        zeros = [torch.zeros_like(mean) for mean in self.means]
        ones = [torch.ones_like(mean) for mean in self.means]
        self.biases = [tensors.get(f"{layer}.bias", zero) for layer, zero in zip(layers, zeros, strict=True)]
        self.scales = [tensors.get(f"{norm}.weight", one) for norm, one in zip(norms, ones, strict=True)]
        self.shifts = [tensors.get(f"{norm}.bias", zero) for norm, zero in zip(norms, zeros, strict=True)]

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        """A copy of a folded copy is not brought up to date: else the model itself would be copied with it."""

    def reads(self, model: Classifier) -> bool:
        """Return whether the lists hold exactly the tensors that the model has now."""
        now = [*model.parameters(), *model.buffers()]
        return len(now) == len(self.sources) and all(
            one is other and one.shape == shape
            for one, other, shape in zip(now, self.sources, self.source_shapes, strict=True)
        )

    def update(self) -> None:
        """Copy what is the same in both, and compute the weights of what is folded."""
        for places, tensors in self.copies:
            torch._foreach_copy_(places, tensors)
        if not self.pairs:
            return
        inverse = torch._foreach_rsqrt(torch._foreach_add(self.variances, self.epsilons))
        factors = torch._foreach_mul(self.scales, inverse)
        torch._foreach_copy_(self.to_weights, self.weights)
        shaped = [factor.view(shape) for factor, shape in zip(factors, self.factor_shapes, strict=True)]
        torch._foreach_mul_(self.to_weights, shaped)
        biases = torch._foreach_sub(self.biases, self.means)
        torch._foreach_mul_(biases, inverse)
        torch._foreach_mul_(biases, self.scales)
        torch._foreach_add_(biases, self.shifts)
        torch._foreach_copy_(self.to_biases, biases)


def _evaluating(model: M) -> M:
    return channels_last(copy.deepcopy(model).eval().requires_grad_(False))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _foldable(model: Classifier) -> list[Pair]:
    """Return the pairs of a layer and the batch norm that alone takes what the layer gives; none if that is unknown."""
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # a network's own code raises what it likes where it cannot be traced
        return []
    modules, nodes = dict(model.named_modules(remove_duplicate=False)), list(graph.nodes)
    calls = [node.target for node in nodes if node.op == "call_module"]
    read = {node.target for node in nodes if node.op == "get_attr"}
    owners = [id(own) for module in set(modules.values()) for own in module._parameters.values() if own is not None]
    pairs = []
    for node in nodes:
        layer_node = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(layer_node, fx.Node) or layer_node.op != "call_module":
            continue
        names = (str(layer_node.target), str(node.target))
        layer, norm = modules[names[0]], modules[names[1]]
        alone = list(layer_node.users) == [node] and all(
            calls.count(name) == 1 and not any(str(one).startswith(f"{name}.") for one in read) for name in names
        )
        shared = any(owners.count(id(own)) > 1 for one in (layer, norm) for own in one.parameters(recurse=False))
        if alone and not shared and _fit(layer, norm):
            pairs.append(names)
    return pairs


def _fit(layer: nn.Module, norm: nn.Module) -> bool:
    """Return whether two modules are a layer and a batch norm of exactly torch's own kinds, without hooks."""
    if (type(layer), type(norm)) not in ((nn.Conv2d, nn.BatchNorm2d), (nn.Linear, nn.BatchNorm1d)):
        return False  # a subclass may compute something else
    hooked = any(one._forward_hooks or one._forward_pre_hooks for one in (layer, norm))
    return not hooked and isinstance(norm.running_mean, Tensor) and isinstance(layer.weight, nn.Parameter)


def _fold(copied: Classifier, model: Classifier, pairs: Sequence[Pair]) -> _Folding:
    """Fold batch norms of a copy in place; identities stand where they were."""
    for layer_name, norm_name in pairs:
        layer = copied.get_submodule(layer_name)
        if layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)), requires_grad=False)
        parent, _, own = norm_name.rpartition(".")
        setattr(copied.get_submodule(parent), own, nn.Identity())
    folding = _Folding(copied, model, pairs)
    folding.update()
    return folding
