"""Files of weights in the forms of other people: what is in them is read, and nothing that is in them runs."""

import argparse
import builtins
import os
import pathlib
import subprocess
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from pud.base.errors import InputError
from pud.base.files import is_full
from pud.exchange.weights import FORMS, Weights, read_weights
from pud.models.architectures.resnet import ARCHITECTURES

SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return ARCHITECTURES["resnet8"](input_shape=SHAPE, classes=5).eval()


@pytest.fixture(scope="module")
def tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.state_dict())


def assert_same(weights: Weights, tensors: dict[str, Tensor]) -> None:
    assert weights.tensors.keys() == tensors.keys()
    assert [name for name in tensors if not torch.equal(weights.tensors[name], tensors[name])] == []
    assert not any(tensor.requires_grad for tensor in weights.tensors.values())


def exported(network: nn.Module, path: Path) -> Path:
    torch.export.save(torch.export.export(network, (torch.rand(2, *SHAPE),)), path)
    return path


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("form", FORMS.names())
def test_every_form_gives_back_what_it_was_given(
    form: str, network: nn.Module, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    FORMS.find(form).write(tmp_path / "weights", Weights(tensors, form, (), {}), network, torch.rand(2, *SHAPE))
    weights = read_weights(tmp_path / "weights")  # a name that tells nothing
    assert (weights.form, weights.place) == (form, ())
    assert_same(weights, tensors)


def test_files_of_other_writers_are_read(network: nn.Module, tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "a.pt")
    assert read_weights(tmp_path / "a.pt").form == "safetensors"  # the name does not count
    torch.save(tensors, tmp_path / "b.bin", _use_new_zipfile_serialization=False)
    assert_same(read_weights(tmp_path / "b.bin"), tensors)
    parameters = {name: nn.Parameter(one) if one.is_floating_point() else one for name, one in tensors.items()}
    assert_same(read_weights(saved(parameters, tmp_path / "c.pth")), tensors)
    assert_same(read_weights(exported(network, tmp_path / "d.pt2")), tensors)


@pytest.mark.parametrize(
    "place", [("state_dict",), ("model",), ("net",), ("model_state_dict",), ("weights",), ("student", "state_dict")]
)
def test_a_state_dict_among_other_things_is_found(
    place: tuple[str, ...], tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    content: dict[str, Any] = tensors
    for key in reversed(place):
        content = {"optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}}, "epoch": 7, key: content}
    weights = read_weights(saved(content | {"arch": "resnet8"}, tmp_path / "weights.pt"))
    assert weights.place == place
    assert weights.about == {"arch": "resnet8"}
    assert_same(weights, tensors)


def attack_result(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What BackdoorBench saves of an attack: the weights, and poisoned pictures as PIL and NumPy have them."""
    picture = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    state = {
        "bd_data_container": {"save_folder_path": None, "data_dict": {np.int64(3): (picture, 0, 3, 1, 5)}},
        "getitem_all": True,
        "original_index_array": np.arange(9),
        "poison_indicator": np.zeros(9),
        "save_folder_path": pathlib.PosixPath("record"),
    }
    return {
        "model_name": "resnet8",
        "num_classes": 5,
        "model": tensors,
        "data_path": "data/cifar10",
        "img_size": [16, 16, 3],
        "clean_data": "cifar10",
        "bd_train": state,
        "bd_test": state,
        "args": argparse.Namespace(lr=0.1, best=np.float64(0.93)),
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_the_weights_in_backdoorbench_s_attack_result_are_read_past_its_pictures(
    zipped: bool, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "attack_result.pt"
    torch.save(attack_result(tensors), path, _use_new_zipfile_serialization=zipped)
    weights = read_weights(path)
    assert (weights.form, weights.place) == ("torch", ("model",))
    assert weights.about == {"model_name": "resnet8", "num_classes": 5}
    assert_same(weights, tensors)


class Runs:
    """Unpickled, it calls what it was made with."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def code(mark: Path) -> dict[str, Any]:
    """What touches a file when it is unpickled, by its name in the pickle; the last one does nothing."""
    return {
        "posix.system": Runs(os.system, f"touch {mark}"),
        "exec": Runs(builtins.exec, f"open({str(mark)!r}, 'w')"),
        "commands.call": Runs(subprocess.call, ["touch", str(mark)]),  # subprocess, by its name in Python 2
        "torch.serialization.save": Runs(torch.save, 1, str(mark)),
        "numpy.save": Runs(np.save, str(mark), 1),
        "test_weights.Runs": Runs(Runs, 1),
    }


@pytest.mark.parametrize("kind", code(Path()))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_code_in_it_is_refused_and_nothing_runs(
    kind: str, zipped: bool, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path, mark = tmp_path / "weights.pt", tmp_path / "ran"
    content = {"model": tensors, "extra": code(mark)[kind]}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    sentence = rf"weights\.pt holds code \({kind}\), and none of it was run: .*weights_only=False\)\['model'\]"
    with pytest.raises(InputError, match=sentence):
        read_weights(path)
    assert not mark.exists()
    if kind != "test_weights.Runs":
        torch.load(path, weights_only=False)
        assert list(tmp_path.glob("ran*"))  # else the claim holds of nothing


def test_a_network_that_was_saved_whole_is_refused_with_its_class(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds code \(pud\.models\.architectures\.resnet\.ResNet\).*state_dict"):
        read_weights(saved(network, tmp_path / "whole.pt"))


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to leave it
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(InputError, match=r"script\.pt is TorchScript, which is code"):
        read_weights(tmp_path / "script.pt")


def repacked(path: Path, changed: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """Write an archive anew with other content in some records, which are named by how they end."""
    new = path.with_stem("repacked")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w", compression) as archive:
        for name in old.namelist():
            content = next((one for end, one in changed.items() if name.endswith(end)), None)
            archive.writestr(name, old.read(name) if content is None else content)
    return new


def test_code_in_an_exported_program_does_not_run(network: nn.Module, tmp_path: Path) -> None:
    """It holds pickles that torch.export.load would read: of sample inputs, and of weights that say they are some."""
    program, mark = exported(network, tmp_path / "program.pt2"), tmp_path / "ran"
    evil = saved(code(mark)["posix.system"], tmp_path / "evil.pt").read_bytes()
    read_weights(repacked(program, {"sample_inputs/model.pt": evil}))
    assert not mark.exists()
    with zipfile.ZipFile(program) as archive:
        name = next(name for name in archive.namelist() if name.endswith("_weights_config.json"))
        said = archive.read(name).replace(b'"use_pickle": false', b'"use_pickle": true', 1)
    with pytest.raises(InputError, match=r"repacked\.pt2 holds code"):
        read_weights(repacked(program, {"_weights_config.json": said, "weights/weight_0": evil}))
    assert not mark.exists()


def test_more_than_a_file_holds_is_not_made_of_it(tmp_path: Path) -> None:
    wide = saved({"weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "wide.pt")
    assert wide.stat().st_size < 10_000
    with pytest.raises(InputError, match=r"wide\.pt claims to hold 4,398,046,511,104 bytes of weights"):
        read_weights(wide)
    bomb = repacked(saved({"weight": torch.zeros(1 << 20)}, tmp_path / "full.pt"), {}, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match=r"repacked\.pt is compressed, as torch\.save writes no file"):
        read_weights(bomb)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"weight": torch.zeros(3).to_sparse()}, "weight weight is sparse, quantised, complex or empty"),
        ({"weight": torch.zeros(3, dtype=torch.complex64)}, "weight weight is sparse, quantised, complex or empty"),
        ({"weight": torch.zeros(3, device="meta")}, "weight weight is sparse, quantised, complex or empty"),
        ({"epoch": 3}, "holds no weights"),
        ([torch.zeros(3)], "holds no weights"),
    ],
)
def test_what_is_no_weight_is_refused(content: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        read_weights(saved(content, tmp_path / "weights.pt"))


@pytest.mark.parametrize("form", FORMS.names())
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(
    form: str, network: nn.Module, tensors: dict[str, Tensor], small_disk: Path
) -> None:
    weights = Weights(tensors, form, (), {})
    with pytest.raises(Exception) as failure:  # noqa: PT011 - of each library its own
        FORMS.find(form).write(small_disk / "weights", weights, network, torch.rand(2, *SHAPE))
    assert is_full(failure.value)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors", "weights.pt2"])
def test_a_file_that_was_cut_off_is_refused(
    name: str, network: nn.Module, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / name
    if name.endswith("pt2"):
        exported(network, path)
    elif name.endswith("pt"):
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    whole = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=r"is corrupt|cannot be read|is no file of weights"):
            read_weights(path)


def test_a_file_of_no_form_and_one_that_is_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    with pytest.raises(
        InputError, match=r"model\.onnx is no file of weights that is known here \(safetensors, torch, "
    ):
        read_weights(tmp_path / "model.onnx")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(InputError, match=r"empty\.pt is no file of weights"):
        read_weights(tmp_path / "empty.pt")
    with pytest.raises(InputError, match=r"gone\.pt cannot be read \(No such file or directory\)"):
        read_weights(tmp_path / "gone.pt")
