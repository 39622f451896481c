"""The check of a data set names every bad file at once."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from segdistill.data.checks import Checked, check_files
from segdistill.data.files import Pair, PairedFiles
from segdistill.data.mask_code import MaskCode, MaskForm
from segdistill.data.mask_evidence import Evidence
from segdistill.data.problems import LINES_PER_KIND, Kind, Problem
from segdistill.data.samples import CachedSamples
from segdistill.data.taxonomy import CAMVID
from segdistill.errors import DataError

SIZE = (60, 80)  # height, width
BYTES = 60 * 80 * 4  # of a decoded pair
MakePair = Callable[..., Pair]


@pytest.fixture
def make_pair(tmp_path: Path) -> MakePair:
    """Write a sound pair, or one with the given mask."""
    rng = np.random.default_rng(0)

    def make(name: str, mask: np.ndarray | None = None, image_suffix: str = "png") -> Pair:
        pair = Pair(name, tmp_path / f"{name}.{image_suffix}", tmp_path / f"{name}_mask.png")
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(pair.image)
        drawn = rng.integers(0, 12, SIZE, dtype=np.uint8) if mask is None else mask
        Image.fromarray(drawn).save(pair.mask)
        return pair

    return make


def camvid(*pairs: Pair) -> PairedFiles:
    return PairedFiles(pairs, CAMVID, MaskCode.of(CAMVID))


def check(files: PairedFiles, **options: Any) -> Checked:
    """A split by itself, its masks beside each other included."""
    evidence = Evidence()
    checked = check_files(files, evidence=evidence, **options)
    evidence.judge()
    return checked


def cut_short(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_sound_pairs_pass_and_are_kept_on_demand(make_pair: MakePair) -> None:
    files = camvid(make_pair("a"), make_pair("b"))
    seen: list[tuple[int, int]] = []
    checked = check(files, progress=lambda done, total: seen.append((done, total)))
    assert (checked.decoded, checked.decoded_bytes) == (None, 2 * BYTES)
    assert seen == [(1, 2), (2, 2)]
    assert check(files, keep_bytes=2 * BYTES - 1).decoded is None
    decoded = check(files, keep_bytes=2 * BYTES).decoded
    assert decoded is not None
    cached = CachedSamples(files, decoded)
    assert len(cached) == 2
    for index in range(2):
        np.testing.assert_array_equal(cached.load(index).image, files.load(index).image)
        np.testing.assert_array_equal(cached.load(index).mask, files.load(index).mask)


@pytest.mark.parametrize(
    ("orientation", "size", "told"),
    [
        (1, SIZE, False),
        (2, SIZE, True),
        (3, SIZE, True),
        (4, SIZE, True),
        (6, SIZE, False),
        (6, (8, 8), True),
    ],
)
def test_an_image_that_viewers_turn_is_told_if_its_size_does_not(
    make_pair: MakePair, orientation: int, size: tuple[int, int], told: bool
) -> None:
    pair = make_pair("a", mask=np.zeros(size, np.uint8), image_suffix="jpg")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size[::-1]).save(pair.image, exif=exif)
    assert check(camvid(pair, make_pair("b"))).turned == ((pair.image,) if told else ())


def test_every_bad_file_is_named_in_one_message(make_pair: MakePair, tmp_path: Path) -> None:
    foreign = np.zeros(SIZE, np.uint8)
    foreign[0, :3], foreign[1, 0] = 12, 200
    pairs = {
        "sound": make_pair("sound"),
        "jpeg_cut": make_pair("jpeg_cut", image_suffix="jpg"),
        "png_cut": make_pair("png_cut"),
        "mask_cut": make_pair("mask_cut"),
        "zero_bytes": make_pair("zero_bytes"),
        "both_bad": make_pair("both_bad"),
        "no_mask": make_pair("no_mask"),
        "rgb_mask": make_pair("rgb_mask", np.full((*SIZE, 3), (9, 0, 0), np.uint8)),
        "small_mask": make_pair("small_mask", np.zeros((30, 40), np.uint8)),
        "foreign": make_pair("foreign", foreign),
        "void": make_pair("void", np.full(SIZE, 11, np.uint8)),
    }
    cut_short(pairs["jpeg_cut"].image)
    cut_short(pairs["png_cut"].image)
    cut_short(pairs["mask_cut"].mask)
    pairs["zero_bytes"].image.write_bytes(b"")
    pairs["both_bad"].image.write_text("no image")
    pairs["both_bad"].mask.write_text("no mask")
    pairs["no_mask"].mask.unlink()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    with pytest.raises(DataError) as caught:
        check(
            camvid(*pairs.values()), listed=(Problem(Kind.LONELY, "x.png: has no mask"),), keep_bytes=math.inf
        )

    message = str(caught.value)
    assert message.startswith("12 problems in 10 of 11 labelled images and 1 file without partner\n")
    for path in (
        pairs["jpeg_cut"].image,
        pairs["png_cut"].image,
        pairs["mask_cut"].mask,
        pairs["both_bad"].image,
        pairs["both_bad"].mask,
    ):
        assert f"  {path}: " in message
    assert f"  {pairs['zero_bytes'].image}: the file is empty (0 bytes)" in message
    assert f"  {pairs['no_mask'].mask}: no such file" in message
    assert f"  {pairs['rgb_mask'].mask}: this is a colour image" in message
    assert "masks of colours are read as they are with data.kind=folder" in message
    assert f"  {pairs['small_mask'].mask}: mask 40x30, image 80x60" in message
    assert (
        f"  {pairs['foreign'].mask}: 12 (3 px), 200 (1 px); allowed: 0 to 10, and 11 for ignored" in message
    )
    assert f"  {pairs['void'].mask}: every pixel is ignored (value 11)" in message
    assert str(pairs["sound"].image.with_suffix("")) not in message
    for title in (
        "files without partner (1)",
        "not readable (7)",
        "not stored as masks are (1)",
        "differ in size (1)",
        "outside the classes (1)",
        "no labelled pixel (1)",
    ):
        assert title in message
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_long_lists_are_cut(make_pair: MakePair) -> None:
    bad = make_pair("bad", np.arange(60 * 80, dtype=np.int64).reshape(SIZE).astype(np.uint8))
    with pytest.raises(DataError) as caught:
        check(camvid(*[bad] * (LINES_PER_KIND + 5)))
    message = str(caught.value)
    assert f"{LINES_PER_KIND + 5} problems" in message
    assert message.count("bad_mask.png") == LINES_PER_KIND
    assert message.endswith("  ... and 5 more")
    assert "21 (19 px) ... and 234 more values" in message


def test_pixels_are_counted_by_class_and_image(make_pair: MakePair) -> None:
    mask = np.full(SIZE, 4, np.uint8)
    mask[:2] = 11
    mask[2, :7] = 0
    pixels = check(camvid(make_pair("a", mask), make_pair("b", np.zeros(SIZE, np.uint8)))).pixels
    assert pixels.tolist() == [
        [7, 0, 0, 0, 60 * 80 - 167, 0, 0, 0, 0, 0, 0, 160],
        [4800, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_keeps_the_order(make_pair: MakePair, threads: int) -> None:
    files = camvid(*(make_pair(f"{index}", np.full(SIZE, index, np.uint8)) for index in range(11)))
    checked = check(files, keep_bytes=math.inf, threads=threads)
    assert checked.decoded is not None
    assert [sample.mask[0, 0] for sample in checked.decoded] == list(range(11))
    assert checked.pixels[:, :-1].argmax(1).tolist() == list(range(11))


ROAD, CAR = (128, 64, 128), (64, 0, 128)
COLOURS = {(0, 0, 0): 0, ROAD: 1, CAR: 2}


def coloured(*pairs: Pair, form: MaskForm = "auto") -> PairedFiles:
    return PairedFiles(pairs, CAMVID, MaskCode({0: 0, 1: 1, 2: 2}, COLOURS, 255, form))


def palette_mask(pair: Pair, order: list[tuple[int, int, int]]) -> None:
    """The same picture, background above a road above a car, as a palette of some order."""
    rows = np.repeat([(0, 0, 0), ROAD, CAR], SIZE[0] // 3, axis=0)
    numbers = np.array([order.index(tuple(row)) for row in rows.tolist()], np.uint8)
    stored = Image.fromarray(np.repeat(numbers[:, None], SIZE[1], axis=1), "P")
    stored.putpalette([channel for colour in order for channel in colour])
    stored.save(pair.mask)


def test_a_palette_in_an_order_of_its_own_is_not_taken_for_classes(make_pair: MakePair) -> None:
    same, other = make_pair("same"), make_pair("other")
    palette_mask(same, [(0, 0, 0), ROAD, CAR])
    palette_mask(other, [ROAD, CAR, (0, 0, 0)])
    assert check(coloured(same)).pixels[0, :3].tolist() == [1600, 1600, 1600]
    with pytest.raises(DataError) as caught:
        check(coloured(same, other))
    message = str(caught.value)
    assert "numbers say one class and colours another (1)" in message
    assert f"{other.mask}: 4800 pixels, e.g. number 2 in colour (0, 0, 0)" in message
    assert "data.folder.mask_format" in message
    assert str(same.mask) not in message
    for form, shares in (("rgb", [1600, 1600, 1600]), ("index", [1600, 1600, 1600])):
        assert check(coloured(other, form=form)).pixels[0, :3].tolist() == shares  # type: ignore[arg-type]


def test_a_palette_of_other_colours_is_read_by_its_numbers(make_pair: MakePair) -> None:
    pair = make_pair("a")
    palette_mask(pair, [(0, 0, 0), ROAD, CAR])
    with Image.open(pair.mask) as stored:
        stored.putpalette([0, 0, 0, 9, 9, 9, 64, 0, 128])
        stored.save(pair.mask)
    assert check(coloured(pair)).pixels[0, :3].tolist() == [1600, 1600, 1600]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("top", "upper"), [(4095, 15), (65535, 255)])
def test_how_much_of_16_bits_is_used_is_told(
    make_pair: MakePair, top: int, upper: int, channels: int
) -> None:
    dark, usual = make_pair("dark"), make_pair("usual")
    pixels = np.zeros((*SIZE, channels), np.uint16)
    pixels[3, 4] = top
    cv2.imwrite(str(dark.image), pixels)
    assert check(camvid(dark, usual)).peaks == (upper,)
    assert check(camvid(usual)).peaks == ()


def greys(*pairs: Pair, form: MaskForm = "auto", either: tuple[int, ...] = ()) -> PairedFiles:
    """Masks of classes 0, 1, 2 without colours."""
    values = {0: 0, 1: 1, 2: 2} | dict.fromkeys((255,), 1 if either else 11)
    return PairedFiles(pairs, CAMVID, MaskCode(values, {}, 11, form, either))


def rows(*numbers: int) -> np.ndarray:
    return np.repeat(np.array(numbers, np.uint8), SIZE[0] // len(numbers))[:, None].repeat(SIZE[1], axis=1)


def test_grey_palettes_in_an_order_of_their_own_are_not_taken_for_classes(make_pair: MakePair) -> None:
    """What Pillow's `quantize` and programs that make files small do to a grey mask."""
    pair = make_pair("a", rows(0, 1, 2))
    stored = Image.fromarray(rows(2, 0, 1), "P")
    stored.putpalette([1, 1, 1, 2, 2, 2, 0, 0, 0])
    stored.save(pair.mask)
    with pytest.raises(DataError, match=r"a_mask\.png: 4800 pixels, e\.g\. number 2 in colour \(0, 0, 0\)"):
        check(greys(pair))
    assert check(greys(pair, form="index")).pixels[0, :3].tolist() == [1600, 1600, 1600]


@pytest.mark.parametrize("mode", ["1", "P"])
def test_white_is_1_or_void_as_the_other_masks_have_it(make_pair: MakePair, mode: str) -> None:
    two_levels, empty, plain = (make_pair(name, rows(0, 0)) for name in ("levels", "empty", "plain"))
    stored = Image.fromarray(rows(0, 1), "P")
    stored.putpalette([0, 0, 0, 255, 255, 255])
    (stored.convert("1") if mode == "1" else stored).save(two_levels.mask)
    Image.fromarray(rows(0, 1)).save(plain.mask)  # this one says that 1 is the class
    assert check(greys(two_levels, empty, plain)).pixels[0, :2].tolist() == [2400, 2400]
    Image.fromarray(rows(0, 2, 255)).save(plain.mask)
    with pytest.raises(DataError) as caught:
        check(greys(two_levels, empty, plain))
    message = str(caught.value)
    assert message.startswith("1 problem of masks beside each other\n")
    with pytest.raises(DataError, match="2 problems of masks beside each other"):
        check(greys(two_levels, two_levels, plain))
    assert f"{two_levels.mask}: 2400 pixels of a class are shown in the grey of what is ignored" in message
    assert f"which {plain.mask} holds as a number" in message
    assert check(greys(two_levels, plain, form="index")).pixels[0, :2].tolist() == [2400, 2400]


def test_a_class_without_values_is_1_or_255_but_not_both(make_pair: MakePair) -> None:
    one, white, rim = (make_pair(name, rows(0, *numbers)) for name, numbers in SINGLE.items())
    for alone in (one, white):
        assert check(greys(alone, either=(1, 255))).pixels[0, :2].tolist() == [2400, 2400]
    for both in ((one, white), (rim,)):
        with pytest.raises(
            DataError, match=r"two values where one class was given without any \(1\)"
        ) as caught:
            check(greys(*both, either=(1, 255)))
        assert f"1 in {both[0].mask} and 255 in {both[-1].mask}" in str(caught.value)
        assert "values: [1, 255] if both" in str(caught.value)


def test_what_is_no_pair_is_told_by_its_kind(make_pair: MakePair) -> None:
    listed = [
        Problem(Kind.AGAIN, "val.txt, line 1: a is also trained on"),
        Problem(Kind.TWINS, "a.jpg and a.png"),
        Problem(Kind.LIST, "val.txt, line 2: b is not there"),
        Problem(Kind.LIST, "val.txt, line 3: c is not there"),
    ]
    with pytest.raises(DataError) as caught:
        check(camvid(make_pair("sound")), listed=listed)
    message = str(caught.value)
    assert message.startswith(
        "4 problems in 1 name of several files and 3 lines of lists\nnames that several"
    )
    assert "without partner" not in message
    assert "lines of lists that lead to no pair (2) - correct these lines" in message
    assert "images that lists name more than once (1) - leave each image in one line of one list" in message


def test_masks_of_several_splits_are_judged_together(make_pair: MakePair) -> None:
    one, white = (make_pair(name, rows(0, *SINGLE[name])) for name in ("one", "white"))
    evidence = Evidence()
    for pair in (one, white):
        assert check_files(greys(pair, either=(1, 255)), evidence=evidence).pixels[0, 1] == 2400
    with pytest.raises(DataError, match=f"1 in {one.mask} and 255 in {white.mask}"):
        evidence.judge()


SINGLE = {"one": (1,), "white": (255,), "rim": (1, 255)}


def test_numbers_of_16_bits_have_no_colours(make_pair: MakePair) -> None:
    """Pillow would show all above 255 as white, which is void in the other mask."""
    wide = np.repeat(np.array([0, 300], np.uint16), SIZE[0] // 2)[:, None].repeat(SIZE[1], axis=1)
    pairs = make_pair("wide", wide), make_pair("void", rows(0, 255))
    files = PairedFiles(pairs, CAMVID, MaskCode({0: 0, 300: 1, 255: 11}, {}, 11, "auto"))
    assert check(files).pixels[:, [0, 1, 11]].tolist() == [[2400, 2400, 0], [2400, 0, 2400]]
