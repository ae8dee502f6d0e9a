"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) as published: the binary and the Python version, which is not unpickled.

The Python version is pickled. Its instructions are read one by one (``pickletools``, which runs none of them), and only
those that make numbers, texts, lists, dicts and arrays of bytes are understood.
"""

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pud.base.errors import InputError
from pud.base.files import within
from pud.exchange.pictures.contract import Form, Pictures, Raw, Split, first_folder, not_published, shown

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
MAXIMUM_BYTES = 512 << 20
BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
PYTHON_10 = {  # md5 of each file, as torchvision states them
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
PYTHON_100 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
BINARY_10 = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}  # cs.toronto.edu/~kriz/cifar.html
BINARY_100 = {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"}

MARK = object()
NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
CONTENTS = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
PUSHED = {*NUMBERS, *TEXTS, *CONTENTS}  # instructions that put their argument on the stack
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Bytes:
    """What stands for an array while it is put together: its shape and its bytes."""

    shape: tuple[int, ...] = ()
    content = b""

    def build(self, state: Any) -> None:
        """Take what NumPy calls the state of an array: version, shape, type, order, bytes."""
        if isinstance(state, tuple) and len(state) == 5:
            self.shape, content = state[1], state[4]
            self.content = content.encode("latin-1") if isinstance(content, str) else content


def _array(*_: Any) -> Bytes:
    return Bytes()


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin-1")


KNOWN: dict[str, Callable[..., Any]] = {  # what such files call, and what is done instead
    "numpy.core.multiarray _reconstruct": _array,
    "numpy._core.multiarray _reconstruct": _array,
    "numpy ndarray": _array,
    "numpy dtype": _array,
    "_codecs encode": _encode,
}


def read_pickled(path: Path) -> dict[str, Any]:
    """Return the dict that a CIFAR file holds, without running anything that it asks for.

    Raises:
        InputError: it asks for anything else than such files need, or is damaged.
    """
    content = within(path, MAXIMUM_BYTES).read_bytes()
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def to_mark() -> list[Any]:
        at = len(stack) - 1 - next(back for back, one in enumerate(reversed(stack)) if one is MARK)
        items = stack[at + 1 :]
        del stack[at:]
        return items

    try:
        argument: Any
        for operation, argument, _ in pickletools.genops(content):
            name = operation.name
            if name in PUSHED:
                stack.append(argument)
            elif name in CONSTANTS:
                stack.append(CONSTANTS[name])
            elif name == "MARK":
                stack.append(MARK)
            elif name in EMPTY:
                stack.append(EMPTY[name]())
            elif name in TUPLES:
                stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
            elif name in ("TUPLE", "LIST"):
                stack.append((tuple if name == "TUPLE" else list)(to_mark()))
            elif name == "DICT":
                items = to_mark()
                stack.append(dict(zip(items[::2], items[1::2], strict=True)))
            elif name == "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            elif name == "APPENDS":
                items = to_mark()
                stack[-1].extend(items)
            elif name == "SETITEM":
                key, value = stack.pop(-2), stack.pop()
                stack[-1][key] = value
            elif name == "SETITEMS":
                items = to_mark()
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "GLOBAL":
                stack.append(_known(argument))
            elif name == "STACK_GLOBAL":
                function, module = stack.pop(), stack.pop()
                stack.append(_known(f"{module} {function}"))
            elif name == "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(function(*arguments))
            elif name == "BUILD":
                state = stack.pop()
                stack[-1].build(state)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise InputError(name)
        (result,) = stack
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in result.items()}
    except InputError as error:
        raise InputError(
            f"{path} asks for {shown(str(error))}, which no CIFAR file needs: it may be made to run code, do not use it"
        ) from None
    except Exception as error:
        raise InputError(f"{path} is damaged or not a CIFAR file ({type(error).__name__}): get it again") from error


def _known(name: str) -> Callable[..., Any]:
    if name not in KNOWN:
        raise InputError(name)
    return KNOWN[name]


def _pickled_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    batch = read_pickled(path)
    data, labels = batch.get("data"), batch.get("fine_labels", batch.get("labels"))
    if not isinstance(data, Bytes) or not isinstance(labels, list) or len(data.content) != len(labels) * PIXELS:
        raise InputError(f"{path} does not hold {PIXELS} bytes of picture for each label: get it again")
    return np.frombuffer(data.content, np.uint8).reshape(-1, *SHAPE), np.array(labels, np.int64)


def _binary_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    before = 2 if path.stem in ("train", "test") else 1  # CIFAR-100: the coarse label first
    content = np.frombuffer(within(path, MAXIMUM_BYTES).read_bytes(), np.uint8)
    if not len(content) or len(content) % (before + PIXELS):
        raise InputError(f"{path} holds {len(content):,} bytes, no multiple of {before + PIXELS:,}: get it again")
    rows = content.reshape(-1, before + PIXELS)
    return rows[:, before:].reshape(-1, *SHAPE), rows[:, before - 1].astype(np.int64)


def _split(paths: list[Path], read: Callable[[Path], tuple[np.ndarray, np.ndarray]]) -> Split:
    parts = [read(path) for path in paths]
    names = [
        f"{path.name}/{index:05d}"
        for path, (_, labels) in zip(paths, parts, strict=True)
        for index in range(len(labels))
    ]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def picture(index: int) -> Raw:
        return images[index].transpose(1, 2, 0)

    return Split(names, labels, picture)


def _folder(source: Path) -> tuple[Path, str] | None:
    """Return the folder that holds the files, and the name of the first of them."""
    for first, inner in (
        ("data_batch_1", "cifar-10-batches-py"),
        ("data_batch_1.bin", "cifar-10-batches-bin"),
        ("train.bin", "cifar-100-binary"),
        ("meta", "cifar-100-python"),
    ):
        if (folder := first_folder(source, ".", inner, holds=first)) and (
            first != "meta" or (folder / "train").is_file()
        ):
            return folder, first
    return None


def reads(source: Path) -> bool:
    """Tell whether the files of one of the four versions are there."""
    return _folder(source) is not None


def _lines(path: Path, count: int) -> list[str]:
    found = within(path, MAXIMUM_BYTES).read_text("utf-8").split("\n") if path.is_file() else []
    return [name.strip() for name in found if name.strip()] or [str(number) for number in range(count)]


def open_cifar(source: Path, scratch: Path, value_range: tuple[float, ...] = ()) -> Pictures:
    """Return the pictures of CIFAR-10, or of CIFAR-100 with its fine labels."""
    located = _folder(source)
    assert located, source
    folder, first = located
    if first == "data_batch_1":
        train, test = [name for name in BATCHES if (folder / name).exists()], "test_batch"
        published, what = {folder / name: digest for name, digest in PYTHON_10.items()}, "CIFAR-10"
    elif first == "data_batch_1.bin":
        train, test = [f"{name}.bin" for name in BATCHES if (folder / f"{name}.bin").exists()], "test_batch.bin"
        published, what = {source / name: digest for name, digest in BINARY_10.items()}, "CIFAR-10"
    elif first == "train.bin":
        train, test = ["train.bin"], "test.bin"
        published, what = {source / name: digest for name, digest in BINARY_100.items()}, "CIFAR-100"
    else:
        train, test = ["train"], "test"
        published, what = {folder / name: digest for name, digest in PYTHON_100.items()}, "CIFAR-100"
    binary = train[0].endswith(".bin")
    read = _binary_batch if binary else _pickled_batch
    splits = {"train": _split([folder / name for name in train], read)}
    if (folder / test).exists():
        splits["test"] = _split([folder / test], read)
    if binary:
        name, count = ("batches.meta.txt", 10) if what == "CIFAR-10" else ("fine_label_names.txt", 100)
        classes = _lines(folder / name, count)
    else:
        path = folder / ("batches.meta" if what == "CIFAR-10" else "meta")
        names = read_pickled(path) if path.exists() else {}
        classes = list(map(str, names.get("fine_label_names", names.get("label_names", range(10)))))
    return Pictures(splits, tuple(classes), not_published(published, what))


FORMS = {"cifar": Form(reads, open_cifar)}
