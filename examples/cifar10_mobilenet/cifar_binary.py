"""Read CIFAR-10 in its published binary format, and reject anything else.

A file is a sequence of records: one label byte, then 3072 image bytes, channel by channel (red,
green, blue), each with 32 rows of 32 pixels. There are five such files for training and one for
testing.
"""

import hashlib
import io
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # of cifar-10-binary.tar.gz, as published alongside it
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST_FILES = ("test_batch.bin",)
RECORDS = 10_000  # in each file
PIXELS = 3 * 32 * 32


class Images(NamedTuple):
    """Images with their labels."""

    image: np.ndarray  # uint8 [n, 32, 32, 3]
    label: np.ndarray  # int32 [n]


def load(
    place: str | Path, *, md5: str | None = MD5, records: int = RECORDS
) -> tuple[Images, Images]:
    """Read the training and the test images.

    Args:
      place: the archive ``cifar-10-binary.tar.gz``, a folder with it, the unpacked folder
        ``cifar-10-batches-bin``, or the folder around that. Unpacked files come first.
      md5: the expected MD5 sum of the archive; ``None`` skips the check. The unpacked files have no
        published sums, so only their sizes and labels are checked.
      records: how many images each file must contain.

    Raises:
      FileNotFoundError: if none of these exists; the message says where to put the data.
      ValueError: if a file is truncated, has a different format, or is not the published one.
    """
    place = Path(place).expanduser()
    for folder in (place, place / FOLDER):
        if any((folder / name).is_file() for name in TRAIN_FILES + TEST_FILES):
            files = {name: _read_file(folder / name) for name in TRAIN_FILES + TEST_FILES}
            return _split(files, records)
    archive = place / ARCHIVE if place.is_dir() else place
    if not archive.is_file():
        raise FileNotFoundError(_where_to_put_it(place))
    return _split(_read_archive(archive, md5), records)


def decode(raw: bytes, *, name: str, records: int) -> Images:
    """Return the images of one file.

    Raises:
      ValueError: if the size does not match ``records``, or a label is above 9.
    """
    expected = records * (1 + PIXELS)
    if len(raw) != expected:
        raise ValueError(
            f"{name} has {len(raw):,} bytes, but {records:,} images of 3,073 bytes are "
            f"{expected:,}: it is truncated, or not from the binary version of CIFAR-10. "
            "Download it again."
        )
    table = np.frombuffer(raw, np.uint8).reshape(records, 1 + PIXELS)
    label = table[:, 0].astype(np.int32)
    wrong = np.flatnonzero(label >= len(CLASSES))
    if wrong.size:
        raise ValueError(
            f"{name} has the label {label[wrong[0]]} at image {wrong[0]:,} ({wrong.size:,} such "
            "labels), but CIFAR-10 labels are 0 to 9: the file is damaged or from another data "
            "set. Download it again."
        )
    planes = table[:, 1:].reshape(records, 3, 32, 32)
    return Images(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), label)


def _split(files: dict[str, bytes], records: int) -> tuple[Images, Images]:
    def join(names: tuple[str, ...]) -> Images:
        parts = [decode(files[name], name=name, records=records) for name in names]
        return Images(
            np.concatenate([part.image for part in parts]),
            np.concatenate([part.label for part in parts]),
        )

    return join(TRAIN_FILES), join(TEST_FILES)


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path.name} is missing in {path.parent}, which has others of the six files. "
            f"Unpack {ARCHIVE} again."
        )
    return path.read_bytes()


def _read_archive(path: Path, md5: str | None) -> dict[str, bytes]:
    raw = path.read_bytes()
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if md5 is not None and found != md5:
        raise ValueError(
            f"{path} has the MD5 sum {found}, but the published archive has {md5}: it is "
            "truncated, or a different version (the Python and MATLAB versions do not work). "
            "Download the binary version."
        )
    files: dict[str, bytes] = {}
    try:
        # Nothing is unpacked to disk, so a path in the archive cannot escape a folder.
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:*") as tar:
            for member in tar:
                handle = tar.extractfile(member)
                if handle is not None:
                    files[Path(member.name).name] = handle.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}). Download it again.") from error
    missing = [name for name in TRAIN_FILES + TEST_FILES if name not in files]
    if missing:
        raise ValueError(
            f"{path} has no {', '.join(missing)}: it is not {ARCHIVE}, or is damaged. "
            "Download it again."
        )
    return files


def _where_to_put_it(place: Path) -> str:
    return (
        f"CIFAR-10 is not in {place}. Download the binary version ({ARCHIVE}, 162 MB) from the "
        "University of Toronto's CIFAR-10 page, and pass the file or its folder with --data-dir; "
        f"a folder with the unpacked {FOLDER} works too. Without --data-dir, rendered shapes stand "
        "in for it."
    )
