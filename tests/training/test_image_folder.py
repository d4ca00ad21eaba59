from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageOps

from nases_env.errors import InputError
from nases_env.paths import cache_dir
from nases_env.training import image_folder
from nases_env.training.image_folder import measure_files, read_image_folder, training_files
from tests.training.images import write_folder, write_image


def cache_files() -> list[Path]:
    return sorted(path for path in cache_dir().rglob("*") if path.is_file())


def error_of(root: Path, *, train: bool = True, size: tuple[int, int] | None = (8, 8)) -> str:
    with pytest.raises(InputError) as caught:
        read_image_folder(root, train=train, size=size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_are_sorted_by_class_and_name(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("dog", "cat"), per_class=3, side=6)
    image_set = read_image_folder(tmp_path, train=True, size=None)
    assert image_set.class_names == ("cat", "dog")
    assert image_set.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert image_set.image_shape == (3, 6, 6)
    for index, path in enumerate(sorted((tmp_path / "train").glob("*/*.png"))):
        expected = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
        assert torch.equal(image_set.images[index], expected)


def test_sizes_formats_and_modes_are_converted(tmp_path: Path) -> None:
    write_image(tmp_path / "train/a/wide.png", width=50, height=20)
    write_image(tmp_path / "train/a/small.JPG", width=3, height=4)
    write_image(tmp_path / "train/a/large.jpeg", width=700, height=500)
    write_image(tmp_path / "train/b/gray.png", mode="L")
    write_image(tmp_path / "train/b/gray.jpg", mode="L")
    write_image(tmp_path / "train/b/palette.png", mode="P")
    write_image(tmp_path / "train/b/alpha.png", mode="RGBA")
    write_image(tmp_path / "train/b/cmyk.jpg", mode="CMYK")
    write_image(tmp_path / "train/b/bits.png", mode="1")
    image_set = read_image_folder(tmp_path, train=True, size=(10, 10))
    assert image_set.images.shape == (9, 3, 10, 10)
    assert image_set.labels.tolist() == [0] * 3 + [1] * 6
    gray = image_set.images[[6, 7]]  # gray.jpg and gray.png
    assert torch.equal(gray, gray[:, :1].expand_as(gray))


def test_large_jpeg_is_averaged(tmp_path: Path) -> None:
    write_image(tmp_path / "train/a/noise.jpg", width=1600, height=1600)
    images = read_image_folder(tmp_path, train=True, size=(8, 8)).images.float()
    assert images.std() < 10


def test_16_bit_grayscale_is_scaled(tmp_path: Path) -> None:
    (tmp_path / "train/a").mkdir(parents=True)
    shades = np.array([[0, 16_384], [32_768, 65_535]], dtype=np.uint16)
    Image.fromarray(shades).save(tmp_path / "train/a/deep.png")
    images = read_image_folder(tmp_path, train=True, size=None).images
    assert images[0, 0].tolist() == [[0, 64], [128, 255]]


def test_palette_with_transparency(tmp_path: Path) -> None:
    (tmp_path / "train/a").mkdir(parents=True)
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "train/a/clear.png", transparency=bytes([0, 255]))
    images = read_image_folder(tmp_path, train=True, size=None).images
    assert images[0, :, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "train/a/phone.png"
    write_image(path, width=10, height=6)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.open(path).save(path, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(path)))
    images = read_image_folder(tmp_path, train=True, size=None).images
    assert torch.equal(images[0].permute(1, 2, 0), torch.from_numpy(expected))


def test_only_the_requested_split_is_read(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for path in (tmp_path / "test").glob("*/*"):
        path.write_bytes(b"never opened")
    assert len(read_image_folder(tmp_path, train=True, size=None)) == 6
    assert "not a valid" in error_of(tmp_path, train=False)


def test_only_the_training_images_are_measured(tmp_path: Path) -> None:
    for number, side in enumerate((64, 28, 90)):
        write_image(tmp_path / "train" / "cat" / f"{number}.png", width=side + 5, height=side)
    for hidden in (tmp_path / "train" / "cat" / "._0.png", tmp_path / "train" / ".cache" / "0.png"):
        hidden.parent.mkdir(parents=True, exist_ok=True)
        hidden.write_bytes(b"not an image")
    write_image(tmp_path / "test" / "cat" / "0.png")
    assert measure_files(training_files(tmp_path)) == [(69, 64), (33, 28), (95, 90)]


def test_test_folder_is_optional_for_training(tmp_path: Path) -> None:
    write_image(tmp_path / "train/a/0.png")
    assert len(read_image_folder(tmp_path, train=True, size=None)) == 1
    assert f"{tmp_path / 'test'} is not a directory" in error_of(tmp_path, train=False)


@pytest.mark.parametrize("name", ["train", "test"])
def test_class_with_the_name_of_a_split_is_an_error(name: str, tmp_path: Path) -> None:
    for each in ("cat", name):
        write_image(tmp_path / each / "0.png")
    message = f"{tmp_path / name} contains images, but train and test are reserved names of directories that contain"
    assert message in error_of(tmp_path, train=True)


def test_hidden_files_are_ignored_and_other_files_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    (tmp_path / "train/.cache").mkdir()
    (tmp_path / "train/cat/.DS_Store").write_bytes(b"x")
    assert len(read_image_folder(tmp_path, train=True, size=None)) == 6
    assert not caplog.records
    (tmp_path / "train/cat/notes.txt").write_text("x")
    assert len(read_image_folder(tmp_path, train=True, size=None)) == 6
    assert "ignored 1 files or directories in" in caplog.text
    assert "notes.txt" in caplog.text


def test_directories_in_a_class_directory_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    write_image(tmp_path / "train/cat/more/0.png")
    (tmp_path / "train/dog/.thumbnails").mkdir()
    assert len(read_image_folder(tmp_path, train=True, size=None)) == 6
    (record,) = caplog.records
    assert "ignored 1 files or directories in" in record.getMessage()
    assert record.getMessage().endswith("such as more")


def test_directory_with_the_name_of_an_image_is_ignored(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for index in range(5):
            write_image(tmp_path / name / f"{index}.png")
    expected = training_files(tmp_path)
    (tmp_path / "cat" / "-.png").mkdir()  # the first of this class
    assert training_files(tmp_path) == expected
    assert len(expected) == len(read_image_folder(tmp_path, train=True, size=None)) == 8


def test_other_splits_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path)
    for name in ("val", "extra", ".git"):
        write_image(tmp_path / name / "cat" / "0.png")
    read_image_folder(tmp_path, train=False, size=None)
    assert not caplog.records
    assert len(read_image_folder(tmp_path, train=True, size=None)) == 6
    (record,) = caplog.records
    assert record.getMessage() == (
        f"ignored the directories extra, val in {tmp_path}; to use their images, move them to train or test"
    )


def test_errors_name_the_folder(tmp_path: Path) -> None:
    assert f"{tmp_path} contains no class directories" in error_of(tmp_path)
    (tmp_path / "train").mkdir()
    assert "contains no class directories" in error_of(tmp_path)
    (tmp_path / "train/cat").mkdir()
    assert f"{tmp_path / 'train/cat'} contains no PNG, JPEG" in error_of(tmp_path)
    write_image(tmp_path / "train/cat/0.png")
    write_image(tmp_path / "test/cat/0.png")
    write_image(tmp_path / "test/lynx/0.png")
    assert "only one of them has lynx" in error_of(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("kept", [0, 1, 10, 40, 0.5, 0.9])
def test_truncated_image_is_an_error(tmp_path: Path, suffix: str, kept: float) -> None:
    write_folder(tmp_path, side=40)
    path = tmp_path / f"train/cat/torn{suffix}"
    write_image(path, width=40, height=40)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)])
    assert error_of(tmp_path).startswith(f"{path} is not a valid PNG, JPEG or TIFF image")
    assert not cache_files()


@pytest.mark.parametrize("position", [20, 60, 200, 1000])
def test_png_with_a_corrupt_byte_is_an_input_error_or_decodes(tmp_path: Path, position: int) -> None:
    write_folder(tmp_path, side=40)
    path = tmp_path / "train/cat/0000.png"
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 0xFF
    path.write_bytes(damaged)
    message = ""
    try:
        read_image_folder(tmp_path, train=True, size=(8, 8))
    except InputError as error:
        message = str(error)
    assert message == "" or message.startswith(f"{path} is not a valid")


def test_link_to_itself_is_an_error(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "train" / "cat" / "loop.png").symlink_to("loop.png")
    assert "loop.png (Too many levels of symbolic links)" in error_of(tmp_path)


def test_other_formats_with_an_image_suffix_are_an_error(tmp_path: Path) -> None:
    write_folder(tmp_path)
    path = tmp_path / "train/dog/page.jpg"
    path.write_text("<html>not found</html>\n" * 10)
    assert error_of(tmp_path).startswith(f"{path} is not a valid")
    Image.new("RGB", (5, 5)).save(path, format="BMP")
    assert error_of(tmp_path).startswith(f"{path} is not a valid")


def test_sizes_must_be_equal_without_resizing(tmp_path: Path) -> None:
    write_folder(tmp_path, side=12)
    write_image(tmp_path / "train/dog/other.png", width=13, height=12)
    message = error_of(tmp_path, size=None)
    assert "other.png is 13x12 pixels" in message
    assert "12x12" in message


def test_second_read_uses_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    first = read_image_folder(tmp_path, train=True, size=(8, 8))
    assert len(cache_files()) == 1
    monkeypatch.setattr(image_folder, "read_image", None)
    again = read_image_folder(tmp_path, train=True, size=(8, 8))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)


def test_changed_files_or_side_invalidate_the_cache(tmp_path: Path) -> None:
    write_folder(tmp_path)
    first = read_image_folder(tmp_path, train=True, size=(8, 8))
    assert read_image_folder(tmp_path, train=True, size=(9, 9)).image_shape == (3, 9, 9)
    path = tmp_path / "train/cat/0000.png"
    write_image(path, seed=99)
    os.utime(path, ns=(1, 1))
    changed = read_image_folder(tmp_path, train=True, size=(8, 8))
    assert not torch.equal(changed.images[0], first.images[0])
    assert torch.equal(changed.images[1:], first.images[1:])
    path.rename(tmp_path / "train/dog/9999.png")
    assert read_image_folder(tmp_path, train=True, size=(8, 8)).labels.tolist() == [0, 0, 1, 1, 1, 1]


def test_cached_images_that_are_not_used_for_a_month_are_removed(tmp_path: Path) -> None:
    for name in ("used", "unused"):
        write_folder(tmp_path / name)
        read_image_folder(tmp_path / name, train=True, size=(8, 8))
        if name == "used":
            (used,) = cache_files()
    (unused,) = set(cache_files()) - {used}
    of_user = cache_dir() / "images-mine.safetensors"
    of_user.write_bytes(b"")
    days = time.time() - 31 * 86_400
    for path in cache_files():
        os.utime(path, (days, days))
    read_image_folder(tmp_path / "used", train=True, size=(8, 8))
    assert unused.exists()
    read_image_folder(tmp_path / "used", train=False, size=(8, 8))
    assert not unused.exists()
    assert used.exists()
    assert of_user.exists()


def test_file_that_is_replaced_by_one_of_the_same_size_and_time_is_decoded(tmp_path: Path) -> None:
    write_folder(tmp_path)
    path = tmp_path / "train/cat/0000.png"
    tifffile.imwrite(path.with_suffix(".tif"), np.zeros((12, 12), np.uint8))
    path.unlink()
    path = path.with_suffix(".tif")
    os.utime(path, ns=(1, 1))
    before = path.stat()
    assert not read_image_folder(tmp_path, train=True, size=(8, 8)).images[0].any()
    tifffile.imwrite(path, np.full((12, 12), 9, np.uint8))
    while path.stat().st_ctime_ns == before.st_ctime_ns or path.stat().st_mtime_ns != 1:  # the clock of the file system
        os.utime(path, ns=(1, 1))
    assert path.stat().st_size == before.st_size
    assert (read_image_folder(tmp_path, train=True, size=(8, 8)).images[0] == 9).all()


def test_cache_distinguishes_folders_with_similar_files(tmp_path: Path) -> None:
    for split, shade in (("train", 10), ("test", 20)):
        (tmp_path / split / "a").mkdir(parents=True)
        path = tmp_path / split / "a" / "0.png"
        Image.new("RGB", (4, 4), (shade, shade, shade)).save(path)
        os.utime(path, ns=(1, 1))
    assert (tmp_path / "train/a/0.png").stat().st_size == (tmp_path / "test/a/0.png").stat().st_size
    assert read_image_folder(tmp_path, train=True, size=None).images.flatten().tolist() == [10] * 48
    assert read_image_folder(tmp_path, train=False, size=None).images.flatten().tolist() == [20] * 48


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "header"])
def test_damaged_cache_is_rewritten(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    write_folder(tmp_path)
    first = read_image_folder(tmp_path, train=True, size=(8, 8))
    (cache,) = cache_files()
    whole = cache.read_bytes()
    damaged = {
        "truncated": whole[:-5],
        "empty": b"",
        "garbage": b"\xff" * len(whole),
        "header": whole.replace(b'"images"', b'"imagez"'),
    }
    cache.write_bytes(damaged[damage])
    with caplog.at_level(logging.WARNING):
        again = read_image_folder(tmp_path, train=True, size=(8, 8))
    assert torch.equal(first.images, again.images)
    assert "decoding the files again" in caplog.text
    assert cache.read_bytes() == whole


def test_cache_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    write_folder(tmp_path)
    before = os.umask(0o027)
    try:
        read_image_folder(tmp_path, train=True, size=(8, 8))
    finally:
        os.umask(before)
    (cache,) = cache_files()
    assert cache.stat().st_mode & 0o777 == 0o640


def test_unwritable_cache_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path)
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    monkeypatch.setenv("NASES_CACHE_DIR", str(blocker / "cache"))
    assert len(read_image_folder(tmp_path, train=True, size=(8, 8))) == 6
    assert "cannot cache the images" in caplog.text


def test_full_disk_leaves_no_partial_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fill_up(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", fill_up)
    assert len(read_image_folder(tmp_path, train=True, size=(8, 8))) == 6
    assert "No space left" in caplog.text
    assert cache_files() == []


def test_interrupt_leaves_no_partial_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*paths: Any) -> None:
        raise KeyboardInterrupt

    write_folder(tmp_path)
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image_folder(tmp_path, train=True, size=(8, 8))
    assert cache_files() == []
