"""A user's own folders: which files belong together, and to which split."""

import os
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from segdistill.data.files import Listing, files_below
from segdistill.data.folder import FolderLayout, list_split
from segdistill.data.folder import names as folder_names
from segdistill.data.folder.dealing import deal
from segdistill.data.problems import Kind
from segdistill.errors import DataError


@pytest.fixture
def layout(tmp_path: Path) -> FolderLayout:
    return FolderLayout(
        root=tmp_path,
        images=Path("images"),
        masks=Path("masks"),
        image_suffix="",
        mask_suffix="",
        lists={},
        shares={"val": 0.25, "test": 0.0},
        seed=0,
    )


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(listing: Listing) -> list[str]:
    return [pair.name for pair in listing.pairs]


def lines(layout: FolderLayout, split: str, *kinds: Kind) -> list[str]:
    """What is said of a split, all of it of these kinds."""
    problems = list_split(layout, split).problems
    assert {problem.kind for problem in problems} == set(kinds)
    return [problem.line for problem in problems]


def refusal(layout: FolderLayout, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        list_split(layout, split)
    return str(caught.value)


# ---- sub-folders


def test_sub_folders_are_the_splits(layout: FolderLayout) -> None:
    touch(
        layout.root, "images/train/b.jpg", "images/train/deep/a.PNG", "images/val/c.tif", "images/val/.d.png"
    )
    touch(
        layout.root,
        "masks/train/b.png",
        "masks/train/deep/a.png",
        "masks/val/c.bmp",
        "images/train/notes.txt",
    )
    train = list_split(layout, "train")
    assert (names(train), train.problems) == (["b", "deep/a"], ())
    assert (train.pairs[1].image, train.pairs[1].mask) == (
        layout.root / "images/train/deep/a.PNG",
        layout.root / "masks/train/deep/a.png",
    )
    assert names(list_split(layout, "val")) == ["c"]
    assert "images/test: no such folder" in refusal(layout, "test")


def test_links_to_folders_are_followed_but_not_round_and_round(layout: FolderLayout, tmp_path: Path) -> None:
    touch(tmp_path / "disk", "images/a.png", "masks/a.png")
    for name in ("images", "masks"):
        touch(layout.root, f"{name}/train/b.png", f"{name}/val/c.png")
        (layout.root / name / "train" / "site").symlink_to(tmp_path / "disk" / name)
        (layout.root / name / "train" / "round").symlink_to(layout.root / name)
    assert names(list_split(layout, "train")) == ["b", "site/a"]


def test_accents_are_the_same_in_every_spelling(layout: FolderLayout) -> None:
    composed, apart = "stra\u00dfe_\u00fc", "stra\u00dfe_u\u0308"  # as on Linux, and as macOS has it
    touch(layout.root, f"images/train/{apart}.png", f"masks/train/{composed}.png")
    train = list_split(layout, "train")
    assert (names(train), train.problems) == ([composed], ())
    listed = with_lists(layout, train=f"train/{composed}\n")
    assert list_split(listed, "train").pairs[0].image.name == f"{apart}.png"


def test_the_split_may_stand_anywhere_in_the_path(layout: FolderLayout) -> None:
    touch(layout.root, "train/rgb/a.jpg", "train/gt/a.png", "val/rgb/b.jpg", "val/gt/b.png")
    other = replace(layout, images=Path("{split}/rgb"), masks=Path("{split}/gt"))
    assert [names(list_split(other, split)) for split in ("train", "val")] == [["a"], ["b"]]


def test_suffixes_in_one_folder(layout: FolderLayout) -> None:
    touch(layout.root, "all/a.png", "all/a_mask.png", "all/b.png", "all/b_mask.png")
    other = replace(layout, images=Path("all"), masks=Path("all"), mask_suffix="_mask")
    train, val = (list_split(other, split) for split in ("train", "val"))
    assert sorted(names(train) + names(val)) == ["a", "b"]
    (pair,) = train.pairs
    assert (pair.image.name, pair.mask.name) == (f"{pair.name}.png", f"{pair.name}_mask.png")
    assert train.problems == ()


def test_both_suffixes(layout: FolderLayout) -> None:
    touch(layout.root, "images/train/a_rgb.jpg", "masks/train/a_gt.png")
    assert names(list_split(replace(layout, image_suffix="_rgb", mask_suffix="_gt"), "train")) == ["a"]


def test_files_without_partner_and_twins(layout: FolderLayout) -> None:
    touch(layout.root, "images/train/a.jpg", "images/train/b.jpg", "images/train/b.png")
    touch(layout.root, "masks/train/b.png", "masks/train/c.png")
    images, masks = layout.root / "images/train", layout.root / "masks/train"
    listing = list_split(layout, "train")
    assert names(listing) == ["b"]
    assert listing.problems == (
        (Kind.LONELY, f"{images}/a.jpg: has no mask {masks}/a.*"),
        (Kind.TWINS, f"{images}/b.jpg and {images}/b.png"),
        (Kind.LONELY, f"{masks}/c.png: has no image {images}/c.*"),
    )


@pytest.mark.parametrize(("longer", "key"), [("masks", "mask_suffix"), ("images", "image_suffix")])
def test_a_suffix_that_nobody_named_is_told(layout: FolderLayout, longer: str, key: str) -> None:
    for place in ("a", "sub/b", "sub/b_2"):
        for folder in ("images", "masks"):
            touch(layout.root, f"{folder}/{place}{'_gt' if folder == longer else ''}.png")
    assert f"with '_gt' at their end: say so by data.folder.{key}=_gt" in refusal(layout)
    assert len(list_split(replace(layout, **{key: "_gt"}), "train").pairs) == 2, "and one in val"
    touch(layout.root, f"{longer}/c.png")  # not of that form: no pair, and no suffix of all
    assert len(list_split(layout, "train").lonely) == 7


def test_masks_below_the_images(layout: FolderLayout) -> None:
    touch(layout.root, "train/a.jpg", "train/masks/a.png")
    below = replace(layout, images=Path("{split}"), masks=Path("{split}/masks"))
    listing = list_split(below, "train")
    assert (names(listing), listing.problems) == (["a"], ())


# ---- automatic split


def test_the_automatic_split_is_a_partition(layout: FolderLayout) -> None:
    every = [f"{index:03}" for index in range(40)]
    touch(layout.root, *(f"images/{name}.jpg" for name in every), *(f"masks/{name}.png" for name in every))
    other = replace(layout, shares={"val": 0.25, "test": 0.1})
    split = {name: names(list_split(other, name)) for name in ("train", "val", "test")}
    assert {name: len(found) for name, found in split.items()} == {"train": 26, "val": 10, "test": 4}
    assert sorted(chain.from_iterable(split.values())) == every
    assert names(list_split(other, "val")) == split["val"]
    assert names(list_split(replace(other, seed=1), "val")) != split["val"]
    assert split["val"] != every[:10]


def test_one_more_image_moves_few_others() -> None:
    every = [str(index) for index in range(100)]
    before = deal(every, shares={"val": 0.2}, seed=0)
    after = deal([*every, "another"], shares={"val": 0.2}, seed=0)
    assert Counter(before.values()) == {"train": 80, "val": 20}
    assert sum(before[name] != after[name] for name in every) <= 1


def test_a_small_share_is_at_least_one_image() -> None:
    assert Counter(deal(list("abcd"), shares={"val": 0.05, "test": 0.0}, seed=0).values()) == {
        "train": 3,
        "val": 1,
    }


def test_files_without_partner_are_told_once(layout: FolderLayout) -> None:
    touch(layout.root, "images/a.jpg", "images/b.jpg", "images/c.jpg", "masks/a.png", "masks/b.png")
    assert len(list_split(layout, "train").lonely) == 1
    assert list_split(layout, "val").lonely == ()


def test_too_few_images_and_no_test_split(layout: FolderLayout) -> None:
    touch(layout.root, "images/a.jpg", "masks/a.png")
    assert "has 1 labelled images, too few for val" in refusal(layout)
    message = refusal(layout, "test")
    assert "has no split test: before the training, give it a share by data.folder.test_share" in message
    assert "by data.root=DIR, if they lie in DIR/images/test and their masks in DIR/masks/test" in message


def test_shares_that_leave_nothing_to_train_on_are_told(layout: FolderLayout) -> None:
    touch(layout.root, *(f"{kind}/{name}.png" for kind in ("images", "masks") for name in "abcdef"))
    message = refusal(replace(layout, shares={"val": 0.9, "test": 0.05}))
    assert "has 6 labelled images, and data.folder.val_share=0.9 makes 5 of them val and" in message
    assert "data.folder.test_share=0.05 makes 1 of them test, which leaves none to train on" in message
    assert "too few" not in message
    message = refusal(replace(layout, shares={"val": 0.95, "test": 0.0}))
    assert message.endswith(
        "data.folder.val_share=0.95 makes 6 of them val, which leaves none to train on: lower it"
    )


# ---- wrong layouts


def test_missing_folders_say_what_is_there(layout: FolderLayout) -> None:
    touch(layout.root, "imgs/a.jpg", "labels/a.png")
    message = refusal(layout)
    assert f"{layout.root}/images: no such folder" in message
    assert "data.folder.images" in message
    assert message.endswith(f"{layout.root} holds imgs/, labels/")
    assert "there holds" not in refusal(replace(layout, root=layout.root / "not" / "there"))


def test_empty_folders(layout: FolderLayout) -> None:
    touch(layout.root, "images/train/a.gif", "masks/train/a.png")
    assert "images/train: has no image" in refusal(layout)
    touch(layout.root, "images/train/a.jpg")
    assert "masks/train: has no mask (" in refusal(replace(layout, mask_suffix="_m"))


# ---- lists


def with_lists(layout: FolderLayout, **texts: str) -> FolderLayout:
    touch(layout.root, "images/a.jpg", "images/b c.jpg", "images/d/e.jpg")
    touch(layout.root, "masks/a.png", "masks/b c.png", "masks/d/e.png", "other/a label.png")
    for split, text in texts.items():
        (layout.root / f"{split}.txt").write_text(text)
    return replace(layout, lists={split: Path(f"{split}.txt") for split in texts})


def test_lists_of_names_and_of_pairs(layout: FolderLayout) -> None:
    train = "\ufeff# stems, file names, pairs\na\nd/e.jpg\n\nimages/b c.jpg\tother/a label.png\n"
    listing = list_split(with_lists(layout, train=train), "train")
    root = layout.root
    assert listing.problems == ()
    assert [(pair.name, pair.image, pair.mask) for pair in listing.pairs] == [
        ("a", root / "images/a.jpg", root / "masks/a.png"),
        ("d/e", root / "images/d/e.jpg", root / "masks/d/e.png"),
        ("images/b c", root / "images/b c.jpg", root / "other/a label.png"),
    ]


def test_a_name_may_end_like_a_file(layout: FolderLayout) -> None:
    """photo.jpg.png was converted. A run's own lists hold names, those of others files."""
    touch(layout.root, "images/photo.jpg.png", "masks/photo.jpg.png")
    for line in ("photo.jpg", "photo.jpg.png"):
        listing = list_split(with_lists(layout, train=f"{line}\n"), "train")
        assert (names(listing), listing.problems) == (["photo.jpg"], ())
    touch(layout.root, "images/photo.jpg", "masks/photo.png")
    (said,) = lines(with_lists(layout, train="photo.jpg\n"), "train", Kind.TWINS)
    assert "photo.jpg may be" in said
    assert names(list_split(with_lists(layout, train="photo\nphoto.jpg.png\n"), "train")) == [
        "photo",
        "photo.jpg",
    ]


def test_names_with_blanks_and_of_one_of_two_files(layout: FolderLayout) -> None:
    lists = with_lists(layout, train="b c\na.png\nd/e.jpg\n", val="a\n")
    touch(layout.root, "images/a.png")
    listing = list_split(lists, "train")
    assert [pair.image.name for pair in listing.pairs] == ["a.png", "b c.jpg", "e.jpg"]
    assert listing.problems == ()
    images = layout.root / "images"
    said = lines(lists, "val", Kind.TWINS)
    assert said[0] == f"{layout.root}/val.txt, line 1: a may be {images}/a.jpg or {images}/a.png"


def test_every_bad_line_is_told(layout: FolderLayout) -> None:
    lists = with_lists(layout, train="a\nnone\n\nimages/b c.jpg masks/b c.png\na\na.jpg\n", val="d/e\na\n")
    train, image = f"{layout.root}/train.txt", f"{layout.root}/images/a.jpg"
    listing = list_split(lists, "train")
    assert names(listing) == ["a", "a", "a"]
    assert [kind for kind, _ in listing.problems] == [Kind.LIST, Kind.LIST, Kind.AGAIN, Kind.AGAIN]
    missing, unclear, *again = (line for _, line in listing.problems)
    assert missing == f"{train}, line 2: {image[:-5]}none and {layout.root}/masks/none.* are not there"
    assert unclear.startswith(f"{train}, line 4: 'images/b c.jpg masks/b c.png' is neither a name nor")
    assert again == [f"{train}, line {number}: {image} is also named in {train}, line 1" for number in (5, 6)]
    assert lines(lists, "val", Kind.AGAIN) == [
        f"{layout.root}/val.txt, line 2: {image} is also trained on ({train}, line 1)"
    ]


def test_a_name_that_looks_like_a_comment_is_a_name(layout: FolderLayout) -> None:
    touch(layout.root, "images/#1.jpg", "masks/#1.png")
    listing = list_split(with_lists(layout, train="#1\n#2, which is not there\na\n"), "train")
    assert (names(listing), listing.problems) == (["#1", "a"], ())


def test_an_image_of_val_is_none_of_test(layout: FolderLayout) -> None:
    """Val chooses the best epoch."""
    lists = with_lists(layout, train="b c\n", val="a\n", test="d/e\na\nb c\n")
    val, trained = lines(lists, "test", Kind.AGAIN)
    assert val.endswith(
        f"test.txt, line 2: {layout.root}/images/a.jpg is also in the list of val ({layout.root}/val.txt, line 1)"
    )
    assert trained.endswith(f"is also trained on ({layout.root}/train.txt, line 1)")


def test_test_may_be_val_on_purpose(layout: FolderLayout) -> None:
    lists = with_lists(layout, train="b c\n", val="a\n")
    listing = list_split(replace(lists, lists={**lists.lists, "test": "./val.txt"}), "test")
    assert (names(listing), listing.problems) == (["a"], ())


def test_lists_of_what_is_only_scored_are_enough(layout: FolderLayout) -> None:
    lists = with_lists(layout, train="b c\n", val="a\n", test="a\n")
    for one in ("train", "val"):
        (layout.root / f"{one}.txt").unlink()
    listing = list_split(lists, "test")
    assert (names(listing), listing.problems) == (["a"], ())


@pytest.mark.parametrize("spelling", ["{root}/images/a.jpg", "images/../images/a.jpg", "./link/a.jpg"])
def test_an_image_is_the_same_by_every_path(layout: FolderLayout, spelling: str) -> None:
    path = spelling.format(root=layout.root)
    pair = f"{path}\tmasks/a.png\n"
    lists = with_lists(layout, train=f"images/a.jpg masks/a.png\n{pair}", val=pair)
    (layout.root / "link").symlink_to("images")
    train = layout.root / "train.txt"
    (again,) = lines(lists, "train", Kind.AGAIN)
    assert again.endswith(f"a.jpg is also named in {train}, line 1")
    (trained,) = lines(lists, "val", Kind.AGAIN)
    assert trained.endswith(f"a.jpg is also trained on ({train}, line 1)")
    assert names(list_split(lists, "val")) == ["link/a" if "link" in path else "images/a"]


def test_a_relative_root_and_paths_from_above(layout: FolderLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    root = layout.root
    beside = f"{root}/images/a.jpg {root}/masks/a.png\nother/../../{root.name}/images/d/e.jpg masks/d/e.png\n"
    lists = with_lists(layout, train="a\n", val=beside)
    monkeypatch.chdir(root.parent)
    relative = replace(lists, root=Path(root.name))
    assert names(list_split(relative, "val")) == ["images/a", "images/d/e"]
    (line,) = lines(relative, "val", Kind.AGAIN)
    assert f"{root}/images/a.jpg is also trained on" in line
    # The same by a link, and an image that lies elsewhere.
    (root.parent / "far").symlink_to(root)
    touch(root.parent, "else/x.jpg")
    (root / "val.txt").write_text(f"{beside}{root.parent}/else/x.jpg masks/a.png\n")
    linked = replace(lists, root=root.parent / "far")
    assert names(list_split(linked, "val")) == [f"{root.parent}/else/x", "images/a", "images/d/e"]


def test_windows_paths_in_lists_are_told(layout: FolderLayout) -> None:
    lists = with_lists(layout, train="a\nimages\\a.jpg masks\\a.png\nd\\e\nb\\c d e\n")
    said = lines(lists, "train", Kind.LIST)
    assert [line.removeprefix(f"{layout.root}/train.txt, line ")[0] for line in said] == ["2", "3", "4"]
    assert said[0].endswith("masks\\a.png are not there; write / instead of \\")
    assert all(line.endswith("; write / instead of \\") for line in said)


@pytest.mark.parametrize("line", [". .", "images/.. masks", "/ b", ".", "\\"])
def test_lines_without_a_file_are_told(layout: FolderLayout, line: str) -> None:
    (said,) = lines(with_lists(layout, train=f"{line}\n"), "train", Kind.LIST)
    assert f"{layout.root}/train.txt, line 1: " in said
    assert "are not there" in said


def test_pairs_of_other_folders_alone(layout: FolderLayout) -> None:
    lists = with_lists(layout, train="images/a.jpg masks/a.png\n")
    elsewhere = replace(lists, images=Path("none"), masks=Path("neither"))
    assert names(list_split(elsewhere, "train")) == ["images/a"]


def test_a_line_that_is_too_long_for_a_name_is_told(layout: FolderLayout) -> None:
    (line,) = lines(with_lists(layout, train=f"{'x' * 5000}\n"), "train", Kind.LIST)
    assert line.endswith(".* are not there")


def test_the_folders_are_walked_once_for_all_lists(
    layout: FolderLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = with_lists(layout, train="a\n", val="d/e\n")
    walked: list[Path] = []
    monkeypatch.setattr(
        folder_names, "files_below", lambda folder: walked.append(folder) or files_below(folder)
    )
    assert names(list_split(lists, "val")) == ["d/e"]
    assert walked == [layout.root / "images", layout.root / "masks"]


def test_two_masks_of_a_name_in_a_list_are_told(layout: FolderLayout) -> None:
    lists = with_lists(layout, train="a\n")
    touch(layout.root, "masks/a.bmp")
    (line,) = lines(lists, "train", Kind.TWINS)
    masks = layout.root / "masks"
    assert line.endswith(f"train.txt, line 1: the mask of a may be {masks}/a.bmp or {masks}/a.png")


def test_one_folder_and_equal_names_cannot_be_told_apart(layout: FolderLayout) -> None:
    touch(layout.root, "images/a.jpg", "images/a.png")
    message = refusal(replace(layout, masks=layout.images))
    assert "is both the folder of images and that of masks" in message
    assert "data.folder.mask_suffix" in message


def test_missing_and_empty_lists(layout: FolderLayout) -> None:
    lists = with_lists(layout, train="a\n", val="# nothing\n")
    assert refusal(lists, "val").startswith(f"{layout.root}/val.txt: the list of val is empty")
    assert "data.folder.lists.test" in refusal(lists, "test")
    message = refusal(replace(lists, lists={"train": Path("none.txt")}))
    assert message == f"{layout.root}/none.txt: the list of train cannot be read: No such file or directory"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_lists_in_another_encoding_are_told(layout: FolderLayout, encoding: str) -> None:
    lists = with_lists(layout, train="a\n")
    (layout.root / "train.txt").write_bytes("a\n\u00fc\n".encode(encoding))
    assert refusal(lists) == f"{layout.root}/train.txt: the list of train is not UTF-8 text: save it as UTF-8"


@pytest.mark.parametrize(
    "folders", [("training", "validation"), ("Train", "Val"), ("train1", "test"), ("dev",)]
)
def test_folders_that_look_like_splits_are_not_dealt_out(
    layout: FolderLayout, folders: tuple[str, ...]
) -> None:
    for index, folder in enumerate(folders):
        touch(
            layout.root,
            *(f"{kind}/{folder}/{index}{name}.png" for kind in ("images", "masks") for name in "abc"),
        )
    message = refusal(layout)
    assert f"sub-folders {', '.join(sorted(folders))}" in message
    assert "data.folder.lists" in message


def test_a_split_that_is_not_among_the_folders_is_told(layout: FolderLayout) -> None:
    """Where a network is only scored, nothing has to be there to train on."""
    touch(layout.root, "images/test/a.png", "masks/test/a.png")
    assert refusal(layout, "val").endswith(
        "images has the sub-folders test, but no val: score these by --split test"
    )


@pytest.mark.parametrize("folders", [("val",), ("test", "val")])
def test_a_folder_of_training_images_that_is_missing_is_told(
    layout: FolderLayout, folders: tuple[str, ...]
) -> None:
    touch(layout.root, *(f"{kind}/{folder}/a.png" for kind in ("images", "masks") for folder in folders))
    message = refusal(layout, "train")
    assert f"images has the sub-folders {', '.join(folders)}, but no train: put the images" in message
    assert f"into {layout.root}/images/train and their masks into {layout.root}/masks/train" in message
    assert "Rename" not in message


def test_a_network_can_be_scored_where_there_is_nothing_to_train_on(layout: FolderLayout) -> None:
    touch(layout.root, "images/val/a.jpg", "masks/val/a.png")
    assert names(list_split(layout, "val")) == ["a"]


@pytest.mark.parametrize("folder", ["trainyard", "city", "testament"])
def test_other_folders_are_dealt_out_and_told(layout: FolderLayout, folder: str) -> None:
    touch(layout.root, *(f"{kind}/{folder}/{name}.png" for kind in ("images", "masks") for name in "abcd"))
    assert list_split(layout, "train").note.startswith("3 of 4 images, chosen by their names")
    assert list_split(layout, "val").note.startswith("1 of 4 images")


def test_images_beside_the_folders_of_splits_are_told(layout: FolderLayout) -> None:
    touch(
        layout.root, *(f"{kind}/{split}/a.png" for kind in ("images", "masks") for split in ("train", "val"))
    )
    assert [list_split(layout, split).note for split in ("train", "val")] == ["", ""]
    touch(layout.root, "images/b.png", "images/c.png", "images/notes.txt")
    assert list_split(layout, "train").note.startswith("2 images lie in ")
    assert list_split(layout, "val").note == ""


def test_names_that_are_no_text_are_told(layout: FolderLayout) -> None:
    touch(layout.root, "images/a.png", "masks/a.png")
    garbled = os.fsencode(layout.root / "images") + b"/\xfcber.png"
    try:
        os.close(os.open(garbled, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    message = refusal(layout)
    assert "1 files below" in message
    assert "\\udcfcber.png" in message
