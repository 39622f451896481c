"""Cityscapes: its tree, its label ids, and what is said when something is missing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdistill.data.cityscapes import (
    CITYSCAPES,
    LABEL_IDS,
    TRAIN_IDS,
    describe_tree,
    list_split,
    refuse_unlabelled_test,
    resolve_root,
)
from segdistill.data.files import PairedFiles
from segdistill.errors import DataError

#: Training id of every label id 0..33, written down from the official table; 255 is not trained on.
TRAIN_ID_OF = [
    255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12,
    13, 14, 15, 255, 255, 16, 17, 18,
]  # fmt: skip
KINDS = {"labelIds": 34, "labelTrainIds": 19}
MakeTree = Callable[..., Path]


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """A tree of the official layout; small images, since only layout and file kinds matter here."""

    def make(kind: str = "labelIds", size: tuple[int, int] = (32, 64)) -> Path:
        rng = np.random.default_rng(0)
        for split, cities in {"train": ("aachen", "bremen"), "val": ("lindau",), "test": ("berlin",)}.items():
            for city in cities:
                stem = f"{city}_000000_000019"
                image = tmp_path / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png"
                mask = tmp_path / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png"
                for path in (image, mask):
                    path.parent.mkdir(parents=True, exist_ok=True)
                tile = np.tile(rng.integers(0, 256, (32, 64, 3), np.uint8), (size[0] // 32, size[1] // 64, 1))
                Image.fromarray(tile).save(image, compress_level=1)
                top = 1 if split == "test" else KINDS[kind]
                labels = np.tile(rng.integers(0, top, (32, 64), np.uint8), (size[0] // 32, size[1] // 64))
                Image.fromarray(labels).save(mask, compress_level=1)
                # What else lies beside them in the archive.
                for extra in ("color.png", "instanceIds.png", "polygons.json"):
                    mask.with_name(f"{stem}_gtFine_{extra}").write_bytes(b"")
        return tmp_path

    return make


def test_label_ids_become_training_ids() -> None:
    every = np.arange(34, dtype=np.uint8)[None]
    assert LABEL_IDS.encode(every)[0].tolist() == TRAIN_ID_OF
    assert LABEL_IDS.encode(np.array([[255]], np.uint8)).tolist() == [[255]]
    assert TRAIN_IDS.encode(np.array([[0, 18, 255]], np.uint8)).tolist() == [[0, 18, 255]]
    foreign = np.array([[34, 34]], np.uint8)
    assert LABEL_IDS.foreign(foreign, LABEL_IDS.encode(foreign)).startswith(
        "34 (2 px); allowed: 7 to 8, 11 to 13,"
    )


def test_the_classes_are_the_official_ones() -> None:
    official = pytest.importorskip("cityscapesscripts.helpers.labels").labels
    trained = sorted((one for one in official if 0 <= one.trainId < 19), key=lambda one: one.trainId)
    assert CITYSCAPES.names == tuple(one.name for one in trained)
    assert CITYSCAPES.colours == tuple(tuple(one.color) for one in trained)
    assert {one.id: one.trainId if one.trainId >= 0 else 255 for one in official if one.id >= 0} == dict(
        enumerate(TRAIN_ID_OF)
    )


def test_some_classes_by_hand() -> None:
    assert CITYSCAPES.num_classes == 19
    for index, name, colour in (
        (0, "road", (128, 64, 128)),
        (13, "car", (0, 0, 142)),
        (18, "bicycle", (119, 11, 32)),
    ):
        assert (CITYSCAPES.names[index], CITYSCAPES.colours[index]) == (name, colour)


def test_a_split_of_full_size(make_tree: MakeTree) -> None:
    root = make_tree(size=(1024, 2048))
    tree = list_split(root, "train")
    assert (tree.label_ids, tree.listing.lonely) == (True, ())
    assert [pair.name for pair in tree.listing.pairs] == [
        "aachen/aachen_000000_000019",
        "bremen/bremen_000000_000019",
    ]
    files = PairedFiles(tree.listing.pairs, CITYSCAPES, tree.code)
    image, mask = files.load(1)
    assert (image.shape, mask.shape) == ((1024, 2048, 3), (1024, 2048))
    stored = np.array(Image.open(tree.listing.pairs[1].mask))
    np.testing.assert_array_equal(mask, np.array(TRAIN_ID_OF)[stored])


def test_training_ids_are_used_if_there_are_no_label_ids(make_tree: MakeTree) -> None:
    root = make_tree("labelTrainIds")
    tree = list_split(root, "val")
    assert not tree.label_ids
    (pair,) = tree.listing.pairs
    sample = PairedFiles((pair,), CITYSCAPES, tree.code).load(0)
    np.testing.assert_array_equal(sample.mask, np.array(Image.open(pair.mask)))
    make_tree("labelIds")
    assert list_split(root, "val").label_ids


def test_files_without_partner_are_listed(make_tree: MakeTree) -> None:
    root = make_tree()
    mask = root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    image = root / "leftImg8bit/train/bremen/bremen_000000_000019_leftImg8bit.png"
    mask.unlink()
    image.unlink()
    listing = list_split(root, "train").listing
    assert listing.pairs == ()
    assert listing.lonely == (
        f"{root}/gtFine/train/bremen/bremen_000000_000019_gtFine_labelIds.png: has no image {image}",
        f"{root}/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png: has no mask {mask}",
    )


@pytest.mark.parametrize("missing", ["leftImg8bit", "gtFine"])
def test_a_missing_folder_says_where_to_get_it(make_tree: MakeTree, missing: str) -> None:
    root = make_tree()
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(DataError) as caught:
        list_split(root, "val")
    message = str(caught.value)
    assert message.startswith(f"{root / missing / 'val'}: no such folder. Cityscapes has to be fetched")
    for word in (
        "cityscapes-dataset.com",
        "gtFine_trainvaltest.zip",
        "data.root=DIR",
        "SEGDISTILL_CITYSCAPES=DIR",
    ):
        assert word in message


def test_images_without_a_city_folder_are_not_taken_for_cityscapes(make_tree: MakeTree) -> None:
    root = make_tree()
    city = root / "leftImg8bit/val/lindau"
    for path in city.iterdir():
        path.rename(city.parent / path.name)
    with pytest.raises(DataError, match=r"leftImg8bit/val: has no CITY/\*_leftImg8bit\.png"):
        list_split(root, "val")


def test_the_published_test_labels_cannot_be_scored(make_tree: MakeTree) -> None:
    root = make_tree()
    with pytest.raises(DataError, match=r"not public.*Score on val"):
        refuse_unlabelled_test(list_split(root, "test").listing, LABEL_IDS)
    refuse_unlabelled_test(list_split(root, "val").listing, LABEL_IDS)  # somebody's own labels may be there


def test_a_whole_tree_is_counted(make_tree: MakeTree) -> None:
    lines = describe_tree(make_tree()).splitlines()
    assert lines[1] == "  train: 2 images of 2 cities (published: 2975), 2 labelIds, 0 labelTrainIds"
    assert lines[2] == "  val: 1 images of 1 cities (published: 500), 1 labelIds, 0 labelTrainIds"
    assert lines[3].startswith("  test: 1 images of 1 cities (published: 1525)")


def test_what_a_tree_lacks_is_told_for_all_splits_at_once(make_tree: MakeTree) -> None:
    root = make_tree()
    mask = root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    mask.unlink()
    (root / "gtFine/val").rename(root / "gtFine/valid")
    with pytest.raises(DataError) as caught:
        describe_tree(root)
    message = str(caught.value)
    assert "train: 2 images of 2 cities (published: 2975), 1 labelIds" in message
    assert f"has no mask {mask}" in message
    assert f"{root / 'gtFine' / 'val'}: no such folder\n" in message
    assert message.count("cityscapes-dataset.com/downloads") == 1


def test_order_of_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEGDISTILL_CITYSCAPES", "CITYSCAPES_DATASET"):
        monkeypatch.delenv(name, raising=False)
    assert resolve_root(None) == Path("data/cityscapes")
    monkeypatch.setenv("CITYSCAPES_DATASET", str(tmp_path / "official"))
    assert resolve_root(None) == tmp_path / "official"
    monkeypatch.setenv("SEGDISTILL_CITYSCAPES", str(tmp_path / "ours"))
    assert resolve_root(None) == tmp_path / "ours"
    assert resolve_root(tmp_path / "explicit") == tmp_path / "explicit"
