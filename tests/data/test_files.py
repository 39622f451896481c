"""Decoding of images and masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdistill.data.files import Pair, PairedFiles, read_image, read_mask
from segdistill.data.samples import CachedSamples, Samples
from segdistill.data.taxonomy import CAMVID
from segdistill.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 12, (12, 20), dtype=np.uint8)


def test_image_is_rgb(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, RGB)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_image_of_another_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    stored = Image.fromarray(RGB).convert(mode)
    stored.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.array(stored.convert("RGB")))


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to view
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)


def test_image_with_16_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(LABELS.astype(np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: pixels have more than 8 bits"):
        read_image(tmp_path / "a.png")


def test_grey_mask(tmp_path: Path) -> None:
    Image.fromarray(LABELS).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, LABELS)


def test_palette_mask_gives_indexes(tmp_path: Path) -> None:
    image = Image.fromarray(LABELS)
    image.putpalette([value for colour in CAMVID.colours for value in colour])
    assert image.mode == "P"
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), LABELS)


def test_one_bit_mask(tmp_path: Path) -> None:
    Image.fromarray(LABELS > 5).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, LABELS > 5)


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint16, "png"), (">u2", "tif"), (np.int32, "tif")])
def test_wide_grey_mask_with_small_labels(tmp_path: Path, dtype: str, suffix: str) -> None:
    Image.fromarray(LABELS.astype(dtype)).save(tmp_path / f"m.{suffix}")
    mask = read_mask(tmp_path / f"m.{suffix}")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, LABELS)


def test_wide_grey_mask_with_large_labels(tmp_path: Path) -> None:
    Image.fromarray(LABELS.astype(np.uint16) * 1000).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: labels go from 0 to 11000"):
        read_mask(tmp_path / "m.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_mask_with_colours_is_refused(tmp_path: Path, mode: str) -> None:
    Image.fromarray(RGB).convert(mode).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=rf"m\.png: .*mode {mode}\).*convert the colours to indexes"):
        read_mask(tmp_path / "m.png")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.05])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (80, 90, 3), dtype=np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=rf"a\.{suffix}: "):
        read_image(path)


def test_what_is_no_image_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not pixels")
    with pytest.raises(DataError, match=r"empty\.png: the file is empty"):
        read_mask(tmp_path / "empty.png")
    with pytest.raises(DataError, match=r"text\.png: not an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")


def test_paired_files_are_samples(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(LABELS).save(tmp_path / "m.png")
    files: Samples = PairedFiles((Pair("a", tmp_path / "a.png", tmp_path / "m.png"),), CAMVID)
    assert (len(files), files.name(0), files.taxonomy) == (1, "a", CAMVID)
    np.testing.assert_array_equal(files.load(0).image, RGB)
    np.testing.assert_array_equal(files.load(0).mask, LABELS)
    np.testing.assert_array_equal(CachedSamples.of(files).load(0).mask, LABELS)
