"""Decoding of images and masks."""

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segdistill.data.files import Pair, PairedFiles, files_below, read_image, read_mask, read_photo
from segdistill.data.mask_code import MaskCode
from segdistill.data.samples import CachedSamples, Samples
from segdistill.data.taxonomy import CAMVID
from segdistill.errors import DataError, MaskFormError

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


@pytest.mark.filterwarnings("error")
def test_of_a_transparent_palette_the_colours_stay(tmp_path: Path) -> None:
    palette = np.array([[9, 8, 7], [200, 100, 50]], np.uint8)
    stored = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    stored.putpalette(palette.tobytes())
    stored.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), palette[[[0, 1], [1, 0]]])


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to view
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)


def test_an_orientation_is_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(RGB).save(tmp_path / "b.png")
    exif[0x0112] = 0  # of a camera that does not know
    Image.fromarray(RGB).save(tmp_path / "c.png", exif=exif)
    assert [read_photo(tmp_path / f"{name}.png").orientation for name in "abc"] == [3, 1, 1]


def grey_png(*rows: int, bits: int, width: int) -> bytes:
    """By the PNG standard, as Pillow does not write it: one byte for each row."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, len(rows), bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(bytes([0, row]) for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_grey_of_two_or_four_bits_is_read_as_far_as_it_is_clear(tmp_path: Path) -> None:
    """A viewer shows 1 as 85 or 17; which of them is meant the classes' numbers may tell."""
    path = tmp_path / "a.png"
    for bits, row, width, levels in ((2, 0b00011011, 4, "4"), (4, 0x1F, 2, "16")):
        path.write_bytes(grey_png(row, row, bits=bits, width=width))
        with pytest.raises(
            MaskFormError, match=rf"a\.png: grey of {levels} levels, .* save the mask with 8 bits"
        ):
            read_mask(path)
        numbers, shades = ([0, 1, 2, 3], [0, 85, 170, 255]) if bits == 2 else ([1, 15], [17, 255])
        for meant in (numbers, shades):
            assert read_mask(path, known=meant)[0].tolist() == meant
        with pytest.raises(MaskFormError, match="save the mask with 8 bits"):
            read_mask(path, known=[*numbers, *shades])
        assert read_image(path)[0, :, 0].tolist() == read_mask(path, form="rgb")[0, :, 0].tolist() == shades
    path.write_bytes(grey_png(0, bits=4, width=2))
    assert not read_mask(path).any(), "both readings are the same"
    path.write_bytes(grey_png(0b01010000, bits=1, width=4))
    assert read_mask(path)[0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_tiff_is_not_turned_either(tmp_path: Path, orientation: int, compression: str) -> None:
    stored = Image.fromarray(RGB)
    stored.save(tmp_path / "a.tif", tiffinfo={0x0112: orientation}, compression=compression)
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels, RGB)
    assert photo.orientation == orientation
    Image.fromarray(LABELS).save(tmp_path / "m.tif", tiffinfo={0x0112: orientation}, compression=compression)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.tif"), LABELS)


def test_large_images_are_no_attack(tmp_path: Path) -> None:
    assert Image.MAX_IMAGE_PIXELS is None
    Image.new("L", (14_000, 13_000)).save(tmp_path / "a.png", compress_level=1)
    assert read_mask(tmp_path / "a.png").shape == (13_000, 14_000)


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint16, "png"), (np.uint16, "tif"), (">u2", "tif")])
def test_of_16_bits_the_upper_8_are_kept(tmp_path: Path, dtype: str, suffix: str) -> None:
    wide = np.array([[0, 255, 256], [511, 32768, 65535]])
    Image.fromarray(wide.astype(dtype)).save(tmp_path / f"a.{suffix}")
    pixels = read_image(tmp_path / f"a.{suffix}")
    assert (pixels.dtype, pixels.shape) == (np.uint8, (2, 3, 3))
    for channel in range(3):
        assert pixels[..., channel].tolist() == [[0, 0, 1], [1, 128, 255]]


def test_colour_of_16_bits_keeps_the_upper_8_too(tmp_path: Path) -> None:
    wide = RNG.integers(0, 65536, (12, 20, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), wide[..., ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), wide >> 8)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_image_with_32_bits_is_refused(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(LABELS.astype(dtype)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: pixels of 32 bits"):
        read_image(tmp_path / "a.tif")


def test_a_file_of_several_pages_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(LABELS), Image.fromarray(LABELS)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=r"a\.tif: holds 2 pages"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "webp"])
def test_every_file_type(tmp_path: Path, suffix: str) -> None:
    smooth = np.repeat(np.arange(0, 240, 12, dtype=np.uint8)[None, :, None], 12, 0).repeat(3, 2)
    Image.fromarray(smooth).save(tmp_path / f"a.{suffix}")
    assert np.abs(read_image(tmp_path / f"a.{suffix}").astype(int) - smooth).max() <= 8


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
    large = np.array([[0, 300], [65535, 7]], np.uint16)
    Image.fromarray(large).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), large)
    Image.fromarray(large.astype(np.int32) + 1).save(tmp_path / "m.tif")
    with pytest.raises(DataError, match=r"m\.tif: labels go from 1 to 65536"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_mask_of_16_bit_colours_is_refused(tmp_path: Path, name: str, channels: int) -> None:
    """Its upper halves, which are all that Pillow gives, are 0 for every small class number."""
    wide = np.repeat(LABELS.astype(np.uint16)[..., None], channels, axis=-1)
    wide[..., 3:] = 65535
    cv2.imwrite(str(tmp_path / name), wide)
    for form in ("index", "rgb", "auto"):
        with pytest.raises(MaskFormError, match="several channels of 16 bits"):
            read_mask(tmp_path / name, form)
    cv2.imwrite(str(tmp_path / name), wide[..., :3].astype(np.uint8))
    np.testing.assert_array_equal(read_mask(tmp_path / name), LABELS)


def test_a_grey_mask_saved_as_colour(tmp_path: Path) -> None:
    Image.fromarray(LABELS).convert("RGB").save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), LABELS)
    assert read_mask(tmp_path / "m.png", "auto").shape == (12, 20, 3)


def test_colours_of_a_mask(tmp_path: Path) -> None:
    stored = Image.fromarray(LABELS)
    stored.putpalette([value for colour in CAMVID.colours for value in colour] + [1, 2, 3])
    stored.save(tmp_path / "palette.png")
    stored.convert("RGB").save(tmp_path / "rgb.png")
    stored.convert("RGBA").save(tmp_path / "rgba.png")
    expected = np.array([*CAMVID.colours, (1, 2, 3)], np.uint8)[LABELS]
    for name in ("palette", "rgb", "rgba"):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png", "rgb"), expected)
    np.testing.assert_array_equal(read_mask(tmp_path / "rgb.png", "auto"), expected)
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png", "auto"), LABELS)


def test_a_transparent_mask_is_refused(tmp_path: Path) -> None:
    pixels = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    pixels[3, :4, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "m.png")
    for form in ("index", "rgb", "auto"):
        with pytest.raises(DataError, match=r"m\.png: 4 pixels of this mask are transparent"):
            read_mask(tmp_path / "m.png", form)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_mask_with_colours_is_refused(tmp_path: Path, mode: str) -> None:
    Image.fromarray(RGB).convert(mode).save(tmp_path / "m.png")
    with pytest.raises(DataError, match=r"m\.png: .*mode RGB\).*convert the colours to indexes"):
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
    files: Samples = PairedFiles(
        (Pair("a", tmp_path / "a.png", tmp_path / "m.png"),), CAMVID, MaskCode.of(CAMVID)
    )
    assert (len(files), files.name(0), files.taxonomy) == (1, "a", CAMVID)
    np.testing.assert_array_equal(files.load(0).image, RGB)
    np.testing.assert_array_equal(files.load(0).mask, LABELS)
    np.testing.assert_array_equal(CachedSamples(files, (files.load(0),)).load(0).mask, LABELS)


def test_a_mask_changed_since_the_check_is_told(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(np.full_like(LABELS, 77)).save(tmp_path / "m.png")
    files = PairedFiles((Pair("a", tmp_path / "a.png", tmp_path / "m.png"),), CAMVID, MaskCode.of(CAMVID))
    with pytest.raises(DataError, match=r"m\.png: 77 \(240 px\); allowed: 0 to 10, and 11 for ignored"):
        files.load(0)


def test_a_transparent_palette_has_numbers_and_no_colours(tmp_path: Path) -> None:
    stored = Image.fromarray(LABELS, "P")
    stored.putpalette(bytes(range(256)) * 3)
    number = int(LABELS[0, 0])
    stored.save(tmp_path / "m.png", transparency=number)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", "index"), LABELS)
    count = (number == LABELS).sum()
    with pytest.raises(DataError, match=rf"m\.png: {count} pixels of this mask are transparent"):
        read_mask(tmp_path / "m.png", "rgb")


def test_a_folder_that_fails_while_it_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    whole = os.scandir

    def scandir(place: str) -> object:
        if Path(place).name == "a":
            raise OSError(5, "Input/output error", place)
        return whole(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="a: cannot be read: Input/output error"):
        files_below(tmp_path)


def linked(root: Path, **targets: str) -> None:
    """Folders a, b ... of one image each, with links of the given names in them (`a_other="../b"`)."""
    for name in {key[0] for key in targets}:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / f"{name}.png").touch()
    for key, target in targets.items():
        (root / key[0] / key[2:]).symlink_to(target)


@pytest.mark.parametrize(
    "others", [{"a_other": "../b", "b_other": "../a"}, {"b_other": "../a", "a_other": "../b"}]
)
def test_folders_that_link_to_each_other_are_entered_once(tmp_path: Path, others: dict[str, str]) -> None:
    linked(tmp_path, **others)
    assert files_below(tmp_path) == [tmp_path / "a/a.png", tmp_path / "b/b.png"]


def test_many_folders_that_link_to_each_other_come_to_an_end(tmp_path: Path) -> None:
    names = "abcdefgh"
    linked(tmp_path, **{f"{a}_{b}": f"../{b}" for a in names for b in names if a != b})
    assert files_below(tmp_path) == [tmp_path / name / f"{name}.png" for name in names]


def test_a_folder_elsewhere_is_entered_by_the_first_of_its_links(tmp_path: Path) -> None:
    linked(tmp_path / "disk", x_back="../../top/a", y_up="..")
    linked(tmp_path / "top", a_far="../../disk/x", b_near="../../disk/x", c_more="../../disk/y", d_up="../..")
    found = [path.relative_to(tmp_path / "top").as_posix() for path in files_below(tmp_path / "top")]
    assert found == ["a/a.png", "a/far/x.png", "b/b.png", "c/c.png", "c/more/y.png", "d/d.png"]


def test_a_folder_may_be_a_link_itself(tmp_path: Path) -> None:
    linked(tmp_path, a_self=".")
    (tmp_path / "link").symlink_to("a")
    assert files_below(tmp_path / "link") == [tmp_path / "link/a.png"]


def test_lack_of_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")

    def load(_: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "a.png")
