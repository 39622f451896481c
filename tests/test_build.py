"""From a configuration to checked images, on small trees of every kind; all problems are told at once."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segdistill.build import datasets, network
from segdistill.build import splits as splits_module
from segdistill.build.datasets import build_image_shares, build_train_dataset, size_note
from segdistill.build.objective import build_objective
from segdistill.build.splits import CheckedSplit, build_splits, build_taxonomy, data_hash, names_elsewhere
from segdistill.config import Config
from segdistill.config_io import load_config, resolve
from segdistill.config_method import LogitConfig
from segdistill.console import new_console
from segdistill.data.files import PairedFiles
from segdistill.data.loading import Place
from segdistill.data.samples import CachedSamples
from segdistill.errors import ConfigError, DataError
from segdistill.losses.maps import StepMaps
from segdistill.losses.objective import Needs
from segdistill.losses.terms import Adversarial, LogitDistillation

CONFIGS = Path(__file__).parents[1] / "configs"
SIZE = (24, 32)
BINARY = [{"name": "background"}, {"name": "crack", "values": [255]}]
COLOURS = [{"name": "ground", "colour": [0, 0, 0]}, {"name": "tree", "colour": [0, 128, 0]}]
RNG = np.random.default_rng(0)


def settings(root: Path, *, folder: dict[str, Any] | None = None, **data: Any) -> Config:
    values = {
        "name": "a",
        "data": {
            "kind": "folder",
            "root": str(root),
            "size": [32, 32],
            "folder": folder or {"classes": BINARY},
        },
        "model": {"encoder": "tu-test_efficientnet", "encoder_weights": "none"},
    }
    values["data"] |= data
    return resolve(values, (), source="test")


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_folder(root: Path, mask: Any, count: int = 5, mask_type: str = "png") -> None:
    """`mask(index)` -> its pixels; images are JPEG files of different sizes."""
    for index in range(count):
        pixels = mask(index)
        save(root / f"images/{index}.jpg", RNG.integers(0, 256, (*pixels.shape[:2], 3), np.uint8))
        save(root / f"masks/{index}.{mask_type}", pixels)


def half(index: int, low: int = 0, high: int = 255) -> np.ndarray:
    """Upper half `low`, lower half `high`; each of its own size."""
    mask = np.full((SIZE[0] + 2 * index, SIZE[1] - index), low, np.uint8)
    mask[len(mask) // 2 :] = high
    return mask


def build(config: Config, *splits: str) -> tuple[dict[str, CheckedSplit], str]:
    console = new_console(file=io.StringIO(), width=300)
    return build_splits(config, splits or ("train", "val"), console=console), console.file.getvalue()


def refusal(config: Config, *splits: str) -> str:
    with pytest.raises(DataError) as caught:
        build(config, *splits)
    return str(caught.value)


# ---- what masks may look like


def test_binary_masks_of_0_and_255(tmp_path: Path) -> None:
    write_folder(tmp_path, half)
    splits, _ = build(settings(tmp_path))
    assert {name: len(split.samples) for name, split in splits.items()} == {"train": 4, "val": 1}
    for split in splits.values():
        for index in range(len(split.samples)):
            image, mask = split.samples.load(index)
            assert image.shape[:2] == mask.shape
            np.testing.assert_array_equal(mask, half(int(split.samples.name(index))) // 255)
    assert splits["train"].pixels.sum(0)[0] == splits["train"].pixels.sum(0)[1]


def test_the_hash_of_data_is_that_of_names_images_and_labels_wherever_they_lie(tmp_path: Path) -> None:
    def hash_of(name: str) -> str:
        return data_hash(build(settings(tmp_path / name))[0])

    def copy(name: str) -> Path:
        return Path(shutil.copytree(tmp_path / "here", tmp_path / name))

    write_folder(tmp_path / "here", half)
    here = hash_of("here")
    copy("there")
    assert hash_of("there") == here
    stored = copy("masks of three channels") / "masks/0.png"
    save(stored, np.stack([half(0)] * 3, 2))
    assert hash_of("masks of three channels") == here, "the labels are the same"
    save(copy("mirrored") / "masks/0.png", half(0)[::-1])
    assert hash_of("mirrored") != here, "as many pixels of each class"
    shutil.copy(copy("another image") / "images/0.jpg", tmp_path / "x.jpg")
    save(tmp_path / "another image/images/0.jpg", np.zeros((*half(0).shape, 3), np.uint8))
    assert hash_of("another image") != here
    for part in ("images", "masks"):
        one = next((tmp_path / "another image" / part).glob("4.*"))
        one.rename(one.with_stem("5"))
    shutil.copy(tmp_path / "x.jpg", tmp_path / "another image/images/0.jpg")
    assert hash_of("another image") != here, "another name"


def test_the_hash_of_drawn_data_does_not_depend_on_where_they_are_kept(tmp_path: Path) -> None:
    def hash_of(cache: bool | None, seed: int = 0, size: int = 32) -> str:
        scenes = {"train_images": 2, "val_images": 1, "seed": seed}
        config = settings(tmp_path, kind="synthetic", synthetic=scenes, cache=cache, size=[size, 32])
        return data_hash(build(config)[0])

    here = hash_of(None)
    assert hash_of(True) == hash_of(False) == here
    assert len({here, hash_of(False, seed=1), hash_of(False, size=64)}) == 3


def test_images_that_viewers_turn_are_told(tmp_path: Path) -> None:
    write_folder(tmp_path, half)
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in (tmp_path / "images").iterdir():
        with Image.open(path) as image:
            image.save(path, exif=exif)
    said = build(settings(tmp_path))[1]
    assert "train: viewers turn or mirror 4 images by their EXIF tag" in said
    assert "val: viewers turn or mirror 1 image by their EXIF tag" in said


@pytest.mark.parametrize("foreground", [1, 255])
def test_one_class_alone_gets_a_background(tmp_path: Path, foreground: int) -> None:
    write_folder(tmp_path, lambda index: half(index, high=foreground))
    config = settings(tmp_path, folder={"classes": [{"name": "crack", "colour": [255, 0, 0]}]})
    taxonomy = build_taxonomy(config)
    assert (taxonomy.names, taxonomy.colours) == (("background", "crack"), ((0, 0, 0), (255, 0, 0)))
    sample = build(config)[0]["val"].samples.load(0)
    assert set(np.unique(sample.mask)) == {0, 1}


def test_binary_masks_of_the_wrong_value_do_not_pass_silently(tmp_path: Path) -> None:
    write_folder(tmp_path, half)
    config = settings(tmp_path, folder={"classes": [{"name": "background"}, {"name": "crack"}]})
    message = refusal(config)
    assert (
        "in all 4 training masks the only class is 'background' (50.0% of the pixels are ignored)" in message
    )
    assert "{name: crack, values: [255]}" in message


def test_colours(tmp_path: Path) -> None:
    def coloured(index: int) -> np.ndarray:
        return np.array([(0, 0, 0), (0, 128, 0), (255, 255, 255)], np.uint8)[RNG.integers(0, 3, SIZE)]

    write_folder(tmp_path, coloured, mask_type="bmp")
    config = settings(tmp_path, folder={"classes": COLOURS, "ignore_colours": [[255, 255, 255]]})
    (val,) = [build(config)[0]["val"].samples]
    stored = np.array(Image.open(tmp_path / "masks" / f"{val.name(0)}.bmp"))
    expected = np.where(stored[..., 0] == 255, 255, stored[..., 1] // 128)
    np.testing.assert_array_equal(val.load(0).mask, expected)
    assert "(255, 255, 255) (" in refusal(settings(tmp_path, folder={"classes": COLOURS}))


def test_palette_and_grey_of_16_bits_side_by_side(tmp_path: Path) -> None:
    folder = {"classes": [{"name": "a", "values": [1000, 3]}, {"name": "b", "values": [2]}]}
    write_folder(tmp_path, lambda index: half(index, 3, 2))
    save(tmp_path / "images/x.tif", RNG.integers(0, 65536, SIZE).astype(np.uint16))
    save(tmp_path / "masks/x.png", half(0, 0, 1).astype(np.uint16) * 1000)
    message = refusal(settings(tmp_path, folder=folder))
    assert message.count("masks/x.png: 0 (384 px); allowed: 2 to 3, 1000, and 255 for ignored") == 1
    save(tmp_path / "masks/x.png", half(0, 0, 1).astype(np.uint16) * 1000 + (half(0, 1, 0) * 2))
    palette = Image.fromarray(half(0, 2, 3))
    palette.putpalette([9, 9, 9] * 4)
    palette.save(tmp_path / "masks/0.png")
    splits, _ = build(settings(tmp_path, folder=folder))
    masks = {
        split.samples.name(index): split.samples.load(index).mask
        for split in splits.values()
        for index in range(len(split.samples))
    }
    assert (masks["x"][0, 0], masks["x"][-1, 0]) == (1, 0)
    assert (masks["0"][0, 0], masks["0"][-1, 0]) == (1, 0)
    assert (masks["1"][0, 0], masks["1"][-1, 0]) == (0, 1)


# ---- bad input


def test_the_problems_of_all_splits_are_told_at_once(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for index in range(3):
            save(tmp_path / f"images/{split}/{index}.png", RNG.integers(0, 256, (*SIZE, 3), np.uint8))
            save(tmp_path / f"masks/{split}/{index}.png", half(0))
    save(tmp_path / "masks/train/0.png", half(0, 0, 77))
    save(tmp_path / "masks/train/1.png", half(3))
    (tmp_path / "masks/train/2.png").unlink()
    cut = tmp_path / "images/val/1.png"
    cut.write_bytes(cut.read_bytes()[:300])
    save(tmp_path / "masks/val/2.png", np.full(SIZE, 7, np.uint8))
    message = refusal(settings(tmp_path, folder={"classes": BINARY, "ignore_values": [7]}))
    assert message.startswith("train: 3 problems in 2 of 2 labelled images and 1 file without partner\n")
    assert "\nval: 2 problems in 2 of 3 labelled images" in message
    for line in (
        f"{tmp_path}/images/train/2.png: has no mask {tmp_path}/masks/train/2.*",
        f"{tmp_path}/masks/train/0.png: 77 (384 px); allowed: 0, 255, and 7 for ignored",
        f"{tmp_path}/masks/train/1.png: mask 29x30, image 32x24 (width x height)",
        f"{cut}: cannot be decoded",
        f"{tmp_path}/masks/val/2.png: every pixel is ignored (value 7)",
    ):
        assert f"  {line}" in message


def two_splits(root: Path, train: Image.Image, val: Image.Image) -> None:
    for split, mask in (("train", train), ("val", val)):
        image = np.zeros((*mask.size[::-1], 3), np.uint8)
        path = save(root / f"masks/{split}/0.png", image)
        save(root / f"images/{split}/0.png", image)
        mask.save(path)


@pytest.mark.parametrize("first", [1, 255])
def test_the_two_values_of_one_class_are_found_in_different_splits(tmp_path: Path, first: int) -> None:
    two_splits(tmp_path, *(Image.fromarray(half(0, high=value)) for value in (first, 256 - first)))
    config = settings(tmp_path, folder={"classes": [{"name": "crack"}]})
    message = refusal(config)
    assert message.startswith("train, val: 1 problem of masks beside each other\ntwo values where one class")
    masks = {first: f"{tmp_path}/masks/train/0.png", 256 - first: f"{tmp_path}/masks/val/0.png"}
    assert f"  1 in {masks[1]} and 255 in {masks[255]}" in message
    for split in ("train", "val"):
        assert build(config, split)[0][split].pixels[:, 1].all(), "alone it says what it means"


@pytest.mark.parametrize("swapped", [False, True])
def test_what_white_means_is_found_in_different_splits(tmp_path: Path, swapped: bool) -> None:
    white = Image.fromarray(half(0)).convert("1")
    void = half(0, high=1)
    void[:2] = 255
    two_splits(tmp_path, *sorted((white, Image.fromarray(void)), key=lambda mask: mask.mode, reverse=swapped))
    where = [f"{tmp_path}/masks/{split}/0.png" for split in ("train", "val")]
    levels, plain = where[::-1] if swapped else where
    message = refusal(settings(tmp_path, folder={"classes": [{"name": "a"}, {"name": "b"}]}))
    assert message.startswith("train, val: 1 problem of masks beside each other\n")
    assert (
        f"{levels}: 384 pixels of a class are shown in the grey of what is ignored, which {plain} holds"
        in message
    )


def test_masks_beside_each_other_are_told_along_with_those_alone(tmp_path: Path) -> None:
    two_splits(tmp_path, *(Image.fromarray(half(0, high=value)) for value in (1, 255)))
    save(tmp_path / "images/val/0.png", np.zeros((9, 9, 3), np.uint8))
    message = refusal(settings(tmp_path, folder={"classes": [{"name": "crack"}]}))
    assert message.startswith("val: 1 problem in 1 of 1 labelled images\nimage and mask differ in size")
    assert "\ntrain, val: 1 problem of masks beside each other\n" in message


def test_a_missing_folder_and_root(tmp_path: Path) -> None:
    message = refusal(settings(tmp_path))
    assert message.startswith(f"train, val: {tmp_path}/images: no such folder")
    config = settings(tmp_path)
    nowhere = config.model_copy(update={"data": config.data.model_copy(update={"root": None})})
    assert "data.root is not set" in refusal(nowhere)


def test_class_weights_that_do_not_fit_come_before_the_images(tmp_path: Path) -> None:
    values = settings(tmp_path).model_dump(mode="json")
    values["method"]["supervised"]["class_weights"] = [1, 2, 3]
    with pytest.raises(ConfigError, match=r"class_weights has 3 numbers; the data has 2 classes"):
        build(resolve(values, (), source="test"))


def test_classes_that_are_never_trained_are_told(tmp_path: Path) -> None:
    write_folder(tmp_path, half)
    _, told = build(settings(tmp_path, folder={"classes": [*BINARY, {"name": "hole", "values": [9]}]}))
    assert "no training mask has a pixel of hole: the network cannot learn that" in told


# ---- what is kept in memory


@pytest.mark.parametrize(("cache", "kept"), [(None, True), (True, True), (False, False)])
def test_small_splits_are_kept_unless_told_otherwise(tmp_path: Path, cache: bool | None, kept: bool) -> None:
    write_folder(tmp_path, half)
    splits, told = build(settings(tmp_path, cache=cache))
    assert all(isinstance(split.samples, CachedSamples if kept else PairedFiles) for split in splits.values())
    assert "decoded again" not in told


def test_large_splits_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits_module, "CACHE_BYTES", 4 * 32 * 32)
    write_folder(tmp_path, half)
    splits, told = build(settings(tmp_path))
    assert isinstance(splits["train"].samples, PairedFiles)
    assert "train: images are decoded again each time they are used" in told
    assert "data.cache=true" in told
    assert isinstance(build(settings(tmp_path, cache=True))[0]["train"].samples, CachedSamples)


# ---- Cityscapes


def write_cityscapes(root: Path, kind: str = "labelIds", top: int = 34) -> None:
    for split in ("train", "val", "test"):
        for index in range(3):
            stem = f"ulm_{index:06}_000019"
            save(
                root / f"leftImg8bit/{split}/ulm/{stem}_leftImg8bit.png",
                RNG.integers(0, 256, (*SIZE, 3), np.uint8),
            )
            labels = RNG.integers(0, 1 if split == "test" else top, SIZE, np.uint8)
            save(root / f"gtFine/{split}/ulm/{stem}_gtFine_{kind}.png", labels)


def test_cityscapes(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    config = settings(tmp_path, kind="cityscapes")
    splits, told = build(config)
    sample = splits["train"].samples.load(2)
    stored = np.array(Image.open(tmp_path / "gtFine/train/ulm/ulm_000002_000019_gtFine_labelIds.png"))
    for label, index in ((7, 0), (8, 1), (26, 13), (33, 18), (0, 255), (14, 255), (29, 255)):
        assert (sample.mask[stored == label] == index).all()
    assert build_taxonomy(config).num_classes == 19
    assert "labelTrainIds" not in told
    assert "are not public" in refusal(config, "test")
    for path in (tmp_path / "gtFine/test/ulm").iterdir():
        path.write_bytes(b"")
    known = names_elsewhere(config, "val", console=new_console(quiet=True))
    assert {split: len(names) for split, names in known.items()} == {"test": 3, "train": 3}, "none is opened"


def test_test_images_of_cityscapes_without_any_mask_of_theirs_are_listed(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    for path in (tmp_path / "gtFine/test/ulm").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    message = refusal(settings(tmp_path, kind="cityscapes"), "test")
    assert message.startswith("6 problems in 6 files without partner\n")
    assert "not public" not in message


def test_cityscapes_of_training_ids_says_so(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "labelTrainIds", top=19)
    splits, told = build(settings(tmp_path, kind="cityscapes"))
    assert "train: no labelIds masks, so labelTrainIds are used" in told
    assert splits["val"].pixels.shape == (3, 20)


def test_unknown_label_ids_of_cityscapes_are_listed(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    path = save(tmp_path / "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png", half(0, 7, 40)[:, :32])
    assert f"{path}: 40 (384 px); allowed: 7 to 8, 11 to 13," in refusal(
        settings(tmp_path, kind="cityscapes")
    )


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("cityscapes_*.yaml")), ids=lambda path: path.stem)
def test_the_configurations_of_cityscapes_give_their_crops(tmp_path: Path, path: Path) -> None:
    write_cityscapes(tmp_path)
    config = load_config(path, [f"data.root={tmp_path}"])
    item = build_train_dataset(config, build(config, "train")[0]["train"])[Place(0, 1)]
    assert config.data.crop in ((512, 1024), (768, 768), (384, 768))
    assert (item.images.shape, item.labels.shape) == ((3, *config.data.crop), config.data.crop)
    assert item.labels.max() <= 18 or set(item.labels[item.labels > 18].tolist()) == {255}


# ---- training samples


def test_crop_and_sampling_reach_the_training_samples(tmp_path: Path) -> None:
    def rare(index: int) -> np.ndarray:
        mask = np.zeros((64, 64), np.uint8)
        mask[:3, :3] = 255 * (index == 0)
        return mask

    write_folder(tmp_path, rare, count=6)
    lists = {"train": "train.txt", "val": "val.txt"}
    (tmp_path / "train.txt").write_text("0\n1\n2\n3\n4\n")
    (tmp_path / "val.txt").write_text("5\n")
    folder = {"classes": BINARY, "lists": lists}
    changes = {"size": [64, 64], "crop": [32, 48], "augment": {"scale": [1, 1], "flip": 0}}
    config = settings(tmp_path, folder=folder, sampling={"kind": "class_balanced_crops"}, **changes)
    split = build(config)[0]["train"]
    dataset = build_train_dataset(config, split)
    items = [dataset[Place(epoch, 0)] for epoch in range(40)]
    assert items[0].images.shape == (3, 32, 48)
    # Odds of background : crack are 1/5 : 1, so a crop shows the crack at least 5 times of 6.
    assert np.mean([(item.labels == 1).any().item() for item in items]) > 0.7
    shares = build_image_shares(config, split)
    assert shares is not None
    assert shares.tolist() == pytest.approx([0.1 + 0.5, 0.1, 0.1, 0.1, 0.1])
    uniform = settings(tmp_path, folder=folder, **changes)
    assert build_image_shares(uniform, split) is None
    plain = build_train_dataset(uniform, split)
    assert np.mean([(plain[Place(epoch, 0)].labels == 1).any().item() for epoch in range(40)]) < 0.4


def test_custom_transforms_cannot_choose_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, half)
    changes = {"augment": {"custom": []}, "sampling": {"kind": "class_balanced_crops"}}
    config = settings(tmp_path, **changes)
    with pytest.raises(ConfigError, match=r"data\.sampling\.kind='class_balanced_crops'"):
        build_train_dataset(config, build(config)[0]["train"])


def test_custom_transforms_are_brought_to_the_crop(tmp_path: Path) -> None:
    write_folder(tmp_path, half)
    config = settings(tmp_path, crop=[40, 32], augment={"custom": []})
    assert build_train_dataset(config, build(config)[0]["train"])[Place(0, 0)].labels.shape == (40, 32)


@pytest.mark.parametrize("transform", [{"name": "Normalize"}, {"name": "ToFloat"}])
def test_images_are_normalised_once(tmp_path: Path, transform: dict[str, Any]) -> None:
    write_folder(tmp_path, half)
    config = settings(tmp_path, augment={"custom": [{"name": "HorizontalFlip"}, transform]})
    with pytest.raises(
        DataError, match=r"they give float32 images of shape .* leave out Normalize and ToFloat"
    ):
        build_train_dataset(config, build(config)[0]["train"])


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (
            {"name": "RandomCrop", "height": 30, "width": 24},
            r"CropSizeError: .*\(give it pad_if_needed: true\)",
        ),
        ({"name": "RandomSizedBBoxSafeCrop", "height": 8, "width": 8}, "KeyError: 'bboxes'"),
    ],
)
def test_a_transform_that_fails_names_its_sample(
    tmp_path: Path, transform: dict[str, Any], words: str
) -> None:
    write_folder(tmp_path, lambda index: half(index)[: 40 - 4 * index])
    split = build(settings(tmp_path))[0]["train"]
    config = settings(tmp_path, augment={"custom": [transform]})
    with pytest.raises(DataError, match=rf"data\.augment: the transforms fail on \d \(\d+x\d+\): {words}"):
        build_train_dataset(config, split)


@pytest.mark.parametrize("resizing", ["Resize", "RandomSizedCrop", "SmallestMaxSize", "RandomScale"])
def test_crops_of_another_scale_than_the_scored_one_are_told(tmp_path: Path, resizing: str) -> None:
    write_folder(tmp_path, lambda index: np.pad(half(index), 8))
    config = settings(tmp_path, augment={"custom": [{"name": "HorizontalFlip"}]})
    samples = build(config)[0]["val"].samples
    height, width = samples.load(0).image.shape[:2]
    assert f"images of {width}x{height} pixels as they are stored, and they are scored at 32x32" in size_note(
        config, samples
    )
    for same in (
        settings(tmp_path),
        settings(tmp_path, augment={"custom": []}, size=[height, width]),
        settings(tmp_path, augment={"custom": [{"name": resizing}]}),
    ):
        assert size_note(same, samples) == ""


def test_on_views_is_taught_what_logit_says_on_a_ramp_of_its_own(tmp_path: Path) -> None:
    views = {"weight": 0.5, "ramp": [[0.5, 0], [1, 1]]}
    logit = {"weight": 3.0, "label_gate": True, "temperature": 2.0, "ramp": [[0, 1]], "views": views}
    config = settings(tmp_path)
    method = config.method.model_copy(update={"logit": LogitConfig.model_validate(logit)})
    objective = build_objective(config.model_copy(update={"method": method}), None)
    terms = {term.name: term for term in objective.terms}
    assert isinstance(terms["logit"].loss, LogitDistillation)
    assert terms["views"].loss == terms["logit"].loss
    assert [terms["views"].schedule.at(progress) for progress in (0.5, 0.75, 1.0)] == [0, 0.75, 1.5]
    assert terms["logit"].schedule.at(0.5) == 3
    assert terms["views"].sees == "views"
    assert terms["logit"].sees == "batch"


@pytest.mark.parametrize("students", ["all", "primary", "branches"])
def test_branches_are_said_to_learn_by_the_terms_that_give_them_a_gradient(
    tmp_path: Path, students: str
) -> None:
    views = {"weight": 1.0, "ramp": [[0, 1]]}
    logit = LogitConfig.model_validate({"students": students, "ramp": [[0, 1]], "views": views})
    config = settings(tmp_path)
    method = config.method.model_copy(update={"logit": logit})
    judge = torch.nn.Conv2d(2, 1, 1)
    game = Adversarial("label", 0.1, lambda maps, images, valid: judge(maps))
    terms = {
        term.name: term for term in build_objective(config.model_copy(update={"method": method}), game).terms
    }
    assert terms.keys() == {"primary", "branches", "logit", "views", "feature", "adversarial"}
    for name, term in terms.items():
        maps = StepMaps(
            images=torch.zeros(1, 3, 8, 8),
            labels=torch.arange(64).view(1, 8, 8) % 2,
            primary_logits=torch.randn(1, 2, 8, 8, requires_grad=True),
            branch_logits={
                one: torch.randn(1, 2, 4, 4, requires_grad=True) for one in ("branch3", "branch4")
            },
            features={one: torch.randn(1, 2, 2, 2, requires_grad=True) for one in ("branch3", "branch4")}
            | {"primary": torch.randn(1, 4, 2, 2, requires_grad=True)},
            ignore_index=255,
            grid_stride=4,
        )
        term.loss(maps).backward()
        of_branches = [maps.branch_logits["branch3"], maps.features["branch3"]]
        learn = any(one.grad is not None and one.grad.abs().sum() > 0 for one in of_branches)
        assert (Needs.LEARNING_BRANCHES in term.needs) == learn, name


@pytest.mark.parametrize(
    ("cores", "on_gpu", "processes", "workers"),
    [(64, True, 4, 8), (16, True, 4, 4), (4, True, 8, 1), (64, True, 1, 8), (64, False, 1, 0)],
)
def test_processes_share_the_cores_that_load_images(
    cores: int, on_gpu: bool, processes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "usable_cores", lambda: cores)
    config = resolve({"name": "x"}, (), source="test")
    assert datasets.worker_count(config, on_gpu=on_gpu, processes=processes) == workers


def test_lack_of_memory_is_not_taken_for_a_size_that_a_network_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def survey(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(network, "survey", survey)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        network.build_net(settings(tmp_path))
