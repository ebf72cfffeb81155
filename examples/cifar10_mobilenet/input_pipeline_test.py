"""The CIFAR-10 reader, on files created here in its format, and the processing of images."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from examples.cifar10_mobilenet import cifar_binary, input_pipeline, stand_in
from examples.cifar10_mobilenet.cifar_binary import Images

RECORDS = 7
FILES = cifar_binary.TRAIN_FILES + cifar_binary.TEST_FILES


def made_up(seed: int) -> Images:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (RECORDS, 32, 32, 3), dtype=np.uint8)
    return Images(image, rng.integers(0, 10, RECORDS).astype(np.int32))


def encode(images: Images) -> bytes:
    """Write the published format with plain loops: label, then red, green, and blue by rows."""
    raw = bytearray()
    for image, label in zip(images.image, images.label, strict=True):
        raw.append(int(label))
        for channel in range(3):
            for row in range(32):
                raw += bytes(image[row, column, channel] for column in range(32))
    return bytes(raw)


def write_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for seed, name in enumerate(FILES):
        (folder / name).write_bytes(encode(made_up(seed)))
    return folder


def write_archive(path: Path, *, skip: str = "") -> str:
    with tarfile.open(path, "w:gz") as tar:
        for seed, name in enumerate(FILES):
            raw = encode(made_up(seed))
            member = tarfile.TarInfo(f"{cifar_binary.FOLDER}/{name}")
            member.size = len(raw)
            if name != skip:
                tar.addfile(member, io.BytesIO(raw))
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def assert_all_there(sets: tuple[Images, Images]) -> None:
    train, test = sets
    expected = [made_up(seed) for seed in range(6)]
    np.testing.assert_array_equal(train.image, np.concatenate([x.image for x in expected[:5]]))
    np.testing.assert_array_equal(train.label, np.concatenate([x.label for x in expected[:5]]))
    np.testing.assert_array_equal(test.image, expected[5].image)
    np.testing.assert_array_equal(test.label, expected[5].label)
    assert train.image.dtype == np.uint8
    assert train.label.dtype == np.int32


def test_unpacked_files_are_read_from_their_folder_and_from_the_one_around_it(tmp_path):
    folder = write_folder(tmp_path / cifar_binary.FOLDER)
    assert_all_there(cifar_binary.load(folder, records=RECORDS))
    assert_all_there(cifar_binary.load(tmp_path, records=RECORDS))


def test_the_archive_is_read_from_its_folder_and_by_its_name(tmp_path):
    path = tmp_path / cifar_binary.ARCHIVE
    md5 = write_archive(path)
    assert_all_there(cifar_binary.load(tmp_path, md5=md5, records=RECORDS))
    assert_all_there(cifar_binary.load(path, md5=md5, records=RECORDS))
    assert_all_there(cifar_binary.load(path, md5=None, records=RECORDS))


def test_an_archive_that_is_not_the_published_one_is_refused(tmp_path):
    path = tmp_path / cifar_binary.ARCHIVE
    md5 = write_archive(path)
    with pytest.raises(ValueError, match=f"sum {md5}, but the published .* {cifar_binary.MD5}"):
        cifar_binary.load(path, records=RECORDS)


def test_an_archive_that_was_cut_short_is_refused_by_its_sum_and_without(tmp_path):
    path = tmp_path / cifar_binary.ARCHIVE
    md5 = write_archive(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match="it is truncated, or a different version"):
        cifar_binary.load(path, md5=md5, records=RECORDS)
    with pytest.raises(ValueError, match=r"cannot be unpacked .* Download it again"):
        cifar_binary.load(path, md5=None, records=RECORDS)


def test_an_archive_that_is_damaged_inside_is_refused_without_its_sum(tmp_path):
    path = tmp_path / cifar_binary.ARCHIVE
    write_archive(path)
    raw = bytearray(path.read_bytes())
    raw[50_000:50_100] = bytes(100)
    path.write_bytes(raw)
    # If tarfile takes the damage for the end of the archive, files are missing.
    with pytest.raises(
        ValueError, match=r"(cannot be unpacked|has no data_batch).* Download it again"
    ):
        cifar_binary.load(path, md5=None, records=RECORDS)


def test_an_archive_without_one_of_the_files_is_refused(tmp_path):
    md5 = write_archive(tmp_path / cifar_binary.ARCHIVE, skip="data_batch_4.bin")
    with pytest.raises(ValueError, match=r"has no data_batch_4.bin: it is not"):
        cifar_binary.load(tmp_path, md5=md5, records=RECORDS)


def test_a_file_that_was_cut_short_is_refused_with_both_sizes(tmp_path):
    path = write_folder(tmp_path / "unpacked") / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data_batch_3.bin has 21,510 bytes, .* are 21,511"):
        cifar_binary.load(path.parent, records=RECORDS)


def test_a_label_that_cannot_be_is_refused_with_its_place(tmp_path):
    path = write_folder(tmp_path / "unpacked") / "test_batch.bin"
    raw = bytearray(path.read_bytes())
    raw[3 * 3073] = 10
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"test_batch.bin has the label 10 at image 3 \(1 such"):
        cifar_binary.load(path.parent, records=RECORDS)


def test_a_missing_file_is_named(tmp_path):
    path = write_folder(tmp_path / "unpacked") / "data_batch_5.bin"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_5.bin is missing in .*unpacked"):
        cifar_binary.load(path.parent, records=RECORDS)


def test_an_empty_folder_says_what_to_put_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"binary version .* --data-dir"):
        cifar_binary.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"binary version .* --data-dir"):
        input_pipeline.load(tmp_path / "nowhere", seed=0)


def test_the_stand_in_has_all_classes_and_is_the_same_for_a_seed():
    images = stand_in.shapes(300, seed=3)
    assert images.image.shape == (300, 32, 32, 3)
    assert images.image.dtype == np.uint8
    assert set(images.label) == set(range(10))
    np.testing.assert_array_equal(images.image, stand_in.shapes(300, seed=3).image)
    assert (images.image != stand_in.shapes(300, seed=4).image).any()


def test_without_a_folder_the_stand_in_comes_and_says_so(monkeypatch):
    monkeypatch.setattr(input_pipeline, "STAND_IN", (40, 20))
    input_pipeline.load.cache_clear()
    data = input_pipeline.load(None, seed=0)
    assert data.name == "stand-in"
    assert (len(data.train.label), len(data.test.label)) == (40, 20)


def test_batches_are_normalized_and_an_epoch_shows_each_image_once():
    images = stand_in.shapes(64, seed=0)
    data = input_pipeline.dataset(images, images)
    stream = input_pipeline.batches(data, size=16, seed=0, augment=False)
    epoch = [next(stream) for _ in range(4)]
    pixels = np.concatenate([batch.image for batch in epoch])
    np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2)), 0.0, atol=1e-4)
    np.testing.assert_allclose(pixels.std(axis=(0, 1, 2)), 1.0, atol=1e-3)
    assert pixels.dtype == np.float32
    expected = input_pipeline.normalize(images.image, data)
    assert {x.tobytes() for x in pixels} == {x.tobytes() for x in expected}


def test_augmentation_only_mirrors_and_shifts():
    row = np.arange(32, dtype=np.uint8)
    image = np.broadcast_to(row[:, None, None] + row[None, :, None], (200, 32, 32, 3))
    data = input_pipeline.dataset(Images(image, np.zeros(200, np.int32)), made_up(0))
    batch = next(input_pipeline.batches(data, size=200, seed=0))
    pixels = batch.image * data.std + data.mean
    slopes = np.round(pixels[:, 16, 17, 0] - pixels[:, 16, 16, 0])
    assert set(slopes) == {-1.0, 1.0}
    assert 60 < (slopes == 1.0).sum() < 140
    # The middle was 16 + 16, and moves by up to four rows and four columns.
    middle = np.round(pixels[slopes == 1.0][:, 16, 16, 0]) - 32
    assert np.abs(middle).max() <= 8
    assert len(set(middle)) > 10


def test_a_batch_larger_than_the_set_is_refused():
    data = input_pipeline.dataset(made_up(0), made_up(1))
    with pytest.raises(ValueError, match="a batch of 8 from 7 images"):
        next(input_pipeline.batches(data, size=8, seed=0))
