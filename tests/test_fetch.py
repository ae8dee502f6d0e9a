"""Fetching public data: real-format bytes are parsed, wrong ones refused, one source stands in for another."""

import gzip
import hashlib
import struct
import threading
import tracemalloc
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from servers import Endless

from pud.base.errors import InputError
from pud.data.images import LabelledImages
from pud.data.readers import open_split
from pud.platform import fetch as module
from pud.platform.fetch import CLASSES, IDX_BYTES, IDX_SHA256, fetch, fetch_fashion_mnist, parse_idx, read_idx_folder

Source = Callable[[Path], Path]


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def small(train_split: LabelledImages, test_split: LabelledImages, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The sample as four IDX files, whose digests stand in for those of the full data set."""
    content = {
        "train-images-idx3-ubyte": idx(train_split.images[:, 0]),
        "train-labels-idx1-ubyte": idx(train_split.labels),
        "t10k-images-idx3-ubyte": idx(test_split.images[:, 0]),
        "t10k-labels-idx1-ubyte": idx(test_split.labels),
    }
    for name, data in content.items():
        monkeypatch.setitem(IDX_SHA256, name, hashlib.sha256(data).hexdigest())
        monkeypatch.setitem(IDX_BYTES, name, len(data))
    return content


def source_of(content: dict[str, bytes]) -> Source:
    def source(scratch: Path) -> Path:
        for name, data in content.items():
            (scratch / f"{name}.gz").write_bytes(gzip.compress(data))
        return scratch

    source.__doc__ = "A source that works."
    return source


def absent(scratch: Path) -> Path:
    """A source that is not there."""
    return scratch / "nowhere"


def offline(_: Path) -> Path:
    """A source that cannot be reached."""
    raise OSError("no network")


def truncated(scratch: Path) -> Path:
    """A source whose download broke off."""
    for name in IDX_SHA256:
        (scratch / f"{name}.gz").write_bytes(gzip.compress(bytes(range(256)))[:-12])
    return scratch


@pytest.mark.parametrize("shape", [(3,), (2, 4, 5)])
def test_an_idx_file_is_its_shape_and_its_bytes(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.testing.assert_array_equal(parse_idx(idx(array)), array)


@pytest.mark.parametrize("head", [b"\x00\x00\x0d\x01", b"\x1f\x8b\x08\x01", b"<htm"])
def test_bytes_of_another_kind_are_refused(head: bytes) -> None:
    with pytest.raises(InputError, match="not an IDX file of unsigned bytes"):
        parse_idx(head + bytes(8))


def test_what_is_fetched_is_the_data_set(small: dict[str, bytes], tmp_path: Path, train_split: LabelledImages) -> None:
    fetch_fashion_mnist(tmp_path / "data", sources=(source_of(small),))
    train, test = open_split(tmp_path / "data" / "train"), open_split(tmp_path / "data" / "test")
    np.testing.assert_array_equal(train.images, train_split.images)
    np.testing.assert_array_equal(train.labels, train_split.labels)
    assert (train.classes, train.name, len(test.labels)) == (tuple(CLASSES), "fashion-mnist", 400)


@pytest.mark.parametrize(
    "first",
    [
        absent,
        offline,
        truncated,
    ],
)
def test_the_next_source_stands_in(first: Source, small: dict[str, bytes], tmp_path: Path) -> None:
    fetch_fashion_mnist(tmp_path / "data", sources=(first, source_of(small)))
    assert len(open_split(tmp_path / "data" / "train").labels) == 1500


def test_a_source_with_other_content_is_passed_over(small: dict[str, bytes], tmp_path: Path) -> None:
    forged = small | {"t10k-labels-idx1-ubyte": small["t10k-labels-idx1-ubyte"][:-1] + b"\x00\x01"}
    fetch_fashion_mnist(tmp_path / "data", sources=(source_of(forged), source_of(small)))
    assert len(open_split(tmp_path / "data" / "test").labels) == 400


def test_a_digest_that_differs_is_refused_in_a_sentence(small: dict[str, bytes], tmp_path: Path) -> None:
    small["train-labels-idx1-ubyte"] = bytes(len(small["train-labels-idx1-ubyte"]))
    with pytest.raises(InputError, match=r"train-labels-idx1-ubyte\.gz is not the published Fashion-MNIST"):
        read_idx_folder(source_of(small)(tmp_path))


BOMB, LITTLE = 256 << 20, 32 << 20


def test_a_file_that_unzips_without_end_is_refused_before_it_fills_the_memory(
    small: dict[str, bytes], tmp_path: Path
) -> None:
    source_of(small)(tmp_path)
    with gzip.open(tmp_path / "train-images-idx3-ubyte.gz", "wb", 1) as file:
        for _ in range(BOMB >> 20):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz is not.*holds over 1,176,016 bytes"):
            read_idx_folder(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()


def test_a_mirror_that_never_ends_is_left(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(module, "MIRROR", f"http://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz is not.*holds over [0-9,]+ bytes"):
            module._mirror(tmp_path)
    finally:
        server.shutdown()
        server.server_close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < LITTLE


def test_the_sizes_are_those_of_the_published_files() -> None:
    assert sum(IDX_BYTES.values()) == 70_000 * (28 * 28 + 1) + 2 * (16 + 8)
    assert IDX_BYTES.keys() == IDX_SHA256.keys()


def test_when_all_sources_fail_each_reason_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"A source that cannot be reached\. no network") as caught:
        fetch_fashion_mnist(tmp_path / "data", sources=(absent, offline))
    assert "A source that is not there." in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_data_set_is_refused_with_the_choice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown data set 'cifar': choose one of fashion-mnist"):
        fetch("cifar", tmp_path)
    assert set(module.FETCHERS) == {"fashion-mnist"}
