"""From a `Config` to labelled images: classes, files of each split, and the check of every one of them."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from segdistill.config import Config
from segdistill.config_data import IMPLIED_VALUES, FolderConfig, values_of
from segdistill.console import counted, progress_bar, tracked, warn
from segdistill.data import camvid, cityscapes, folder
from segdistill.data.checks import check_files
from segdistill.data.files import Listing, PairedFiles, dark_in_words
from segdistill.data.mask_code import MaskCode
from segdistill.data.mask_evidence import Evidence
from segdistill.data.samples import CachedSamples, Samples
from segdistill.data.statistics import class_statistics, count_pixels
from segdistill.data.synthetic import SyntheticStreets
from segdistill.data.taxonomy import CAMVID, Taxonomy, distinct_colours
from segdistill.errors import ConfigError, DataError, DataMissingError
from segdistill.files import expanded

#: Decoded images of a split are kept in memory up to this, unless data.cache says otherwise. CamVid's training
#: split takes 0.25 GB, that of Cityscapes would take 25.
CACHE_BYTES = 2 * 10**9
_IGNORED = 255  # in the masks of a folder, once they are read


@dataclass(frozen=True)
class CheckedSplit:
    """A split without problems.

    Attributes:
        samples: its labelled images.
        pixels: (N, C + 1) int64 of each class and, last, ignored, in each sample; of drawn ones that nobody has asked
            for yet, none (N = 0).
        digest: of names, images and labels.
    """

    samples: Samples
    pixels: np.ndarray
    digest: str


def data_hash(splits: Mapping[str, CheckedSplit]) -> str:
    """Tells whether two runs had the same data, wherever they lay: names, images and labels of all samples."""
    digests = sorted((split, checked.digest) for split, checked in splits.items())
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:10]


def build_taxonomy(config: Config) -> Taxonomy:
    """The classes that the network tells apart."""
    match config.data.kind:
        case "camvid" | "synthetic":
            return CAMVID
        case "cityscapes":
            return cityscapes.CITYSCAPES
        case "folder":
            return _folder_taxonomy(config.data.folder)


def _folder_taxonomy(section: FolderConfig) -> Taxonomy:
    given = [one.colour for one in section.told_apart]
    return Taxonomy(tuple(one.name for one in section.told_apart), distinct_colours(given), _IGNORED)


def _folder_code(section: FolderConfig) -> MaskCode:
    """What the values and colours of masks mean. Colours that were made up for pictures are not looked for in masks."""
    values = {value: place for place, one in enumerate(section.told_apart) for value in values_of(one, place)}
    ignored = section.ignore_values if section.ignore_values is not None else (255,)
    colours = {one.colour: place for place, one in enumerate(section.told_apart) if one.colour is not None}
    single = len(section.classes) == 1 and section.classes[0].values is None
    return MaskCode(
        values=dict.fromkeys(ignored, _IGNORED) | values,
        colours=dict.fromkeys(section.ignore_colours, _IGNORED) | colours,
        ignore_index=_IGNORED,
        form=section.mask_format,
        either=IMPLIED_VALUES if single else (),
    )


def build_samples(config: Config, split: str, *, console: Console, download: bool = True) -> Samples:
    """The labelled images of one split; see `build_splits`."""
    return build_splits(config, (split,), console=console, download=download)[split].samples


def names_elsewhere(config: Config, split: str, *, console: Console) -> dict[str, list[str]]:
    """The names of the images of every split but this one, by split; no image is opened."""
    names: dict[str, list[str]] = {}
    for other in sorted({"train", "val", "test"} - {split}):
        if config.data.kind != "synthetic":
            with suppress(DataError):  # not every data set has all three
                names[other] = [pair.name for pair in _listed(config, other, console=console)[0].pairs]
    return names


def data_place(config: Config) -> Path | None:
    """The folder that the data are read from, whichever way it is named; None of drawn ones, or if none is named."""
    root = config.data.root
    match config.data.kind:
        case "synthetic":
            return None
        case "camvid":
            return camvid.resolve_root(root).resolve()
        case "cityscapes":
            return cityscapes.resolve_root(root).resolve()
        case _:
            return root and expanded(root).resolve()


def build_unlabelled_test(config: Config) -> Samples:
    """Cityscapes' test images, to be predicted: the masks published with them hold no class."""
    assert config.data.kind == "cityscapes", "every other test split has labels"
    tree = cityscapes.list_split(cityscapes.resolve_root(config.data.root), "test")
    if tree.listing.lonely:
        raise DataError("\n  ".join(["files without partner would be left out:", *tree.listing.lonely]))
    return PairedFiles(tree.listing.pairs, build_taxonomy(config), tree.code)


def build_splits(
    config: Config, splits: Sequence[str], *, console: Console, download: bool = True
) -> dict[str, CheckedSplit]:
    """The labelled images of some splits, every one of them checked.

    Args:
        config: of the run.
        splits: of train, val and test.
        console: to print on.
        download: whether data that are not there may be fetched.

    Raises:
        ConfigError: if `method.supervised.class_weights` do not fit the classes.
        DataError: listing every problem of all these splits by file.
    """
    check_class_weights(config)
    if config.data.kind == "camvid":  # once for all splits: it may be a download of 190 MB, or fail
        camvid.ensure_camvid(config.data.root, splits=splits, download=download)
    built: dict[str, CheckedSplit] = {}
    problems: dict[str, list[str]] = {}
    kinds: set[type[DataError]] = set()
    evidence = Evidence()  # masks of one split may tell what those of another mean
    for split in splits:
        try:
            if config.data.kind == "synthetic":
                built[split] = _synthetic(config, split, console=console)
            else:
                built[split] = _checked(config, split, evidence, console=console)
        except DataError as error:
            problems.setdefault(str(error), []).append(split)
            kinds.add(type(error))
    try:
        evidence.judge()
    except DataError as error:
        problems[str(error)] = list(splits)
        kinds.add(DataError)
    if problems:
        several = len(splits) > 1
        kind = DataMissingError if kinds == {DataMissingError} else DataError
        raise kind(
            "\n".join(f"{', '.join(where)}: {what}" if several else what for what, where in problems.items())
        )
    return built


def check_class_weights(config: Config) -> None:
    """Raises ConfigError if there are not as many as classes."""
    weights, classes = config.method.supervised.class_weights, build_taxonomy(config).num_classes
    if weights is not None and len(weights) != classes:
        raise ConfigError(
            f"method.supervised.class_weights has {len(weights)} numbers; the data has {classes} classes"
        )


def _synthetic(config: Config, split: str, *, console: Console) -> CheckedSplit:
    sizes = config.data.synthetic
    lengths = {"train": sizes.train_images, "val": sizes.val_images, "test": sizes.test_images}
    height, width = config.data.size
    scenes = SyntheticStreets(split=split, length=lengths[split], height=height, width=width, seed=sizes.seed)
    first = scenes.load(0)  # all the others are drawn by the same code
    seen = hashlib.sha256(first.image.tobytes() + first.mask.tobytes()).hexdigest()
    digest = json.dumps([asdict(scenes), seen])
    if config.data.cache is False:
        uniform = config.data.sampling.kind == "uniform"
        columns = scenes.taxonomy.num_classes + 1
        return CheckedSplit(
            scenes, np.zeros((0, columns), np.int64) if uniform else count_pixels(scenes), digest
        )
    places = tracked(range(len(scenes)), f"drawing {len(scenes)} {split} scenes", console=console)
    cached = CachedSamples(scenes, tuple(scenes.load(index) for index in places))
    return CheckedSplit(cached, count_pixels(cached), digest)


def _checked(config: Config, split: str, evidence: Evidence, *, console: Console) -> CheckedSplit:
    """A split; what its masks say about those of others is added to the evidence."""
    listing, code, root = _listed(config, split, console=console)
    if config.data.kind == "cityscapes" and split == "test":
        cityscapes.refuse_unlabelled_test(listing, code)
    if listing.note:
        console.print(f"{split}: {listing.note}")
    files = PairedFiles(listing.pairs, build_taxonomy(config), code)
    budget = {None: CACHE_BYTES, True: math.inf, False: 0}[config.data.cache]
    with progress_bar(console) as progress:
        task = progress.add_task(f"checking {split} images in {root}", total=len(files))
        checked = check_files(
            files,
            evidence=evidence,
            listed=listing.problems,
            keep_bytes=budget,
            progress=lambda done, _: progress.update(task, completed=done),
        )
    if checked.turned:
        warn(
            console,
            f"{split}: viewers turn or mirror {counted(len(checked.turned), 'image')} by their EXIF tag, "
            f"e.g. {checked.turned[0]}; here they are used as they are stored. If their masks were drawn "
            "on what a viewer shows, save these images upright",
        )
    if dark := dark_in_words(checked.peaks):
        warn(console, f"{split}: {dark}")
    if config.data.cache is None and checked.decoded is None:
        console.print(
            f"{split}: images are decoded again each time they are used; all of them would take "
            f"{checked.decoded_bytes / 1e9:.1f} GB of memory (data.cache=true keeps them)",
        )
    if split == "train":
        _look_for_absent_classes(checked.pixels, files, console=console)
    samples = files if checked.decoded is None else CachedSamples(files, checked.decoded)
    return CheckedSplit(samples, checked.pixels, checked.digest)


def _listed(config: Config, split: str, *, console: Console) -> tuple[Listing, MaskCode, Path]:
    """The files of a split, how masks are read, and the folder they lie in."""
    root = config.data.root
    match config.data.kind:
        case "cityscapes":
            root = cityscapes.resolve_root(root)
            tree = cityscapes.list_split(root, split)
            if not tree.label_ids:
                console.print(f"{split}: no labelIds masks, so labelTrainIds are used")
            return tree.listing, tree.code, root
        case "folder":
            layout = _folder_layout(config)
            return folder.list_split(layout, split), _folder_code(config.data.folder), layout.root
        case _:
            root = camvid.resolve_root(root)
            return camvid.list_split(root, split), MaskCode.of(CAMVID), root


def _folder_layout(config: Config) -> folder.FolderLayout:
    section = config.data.folder
    if config.data.root is None:
        raise DataError("data.root is not set: say which folder holds the images and masks by data.root=DIR")
    lists = {split: path for split in folder.SPLITS if (path := getattr(section.lists, split)) is not None}
    return folder.FolderLayout(
        root=expanded(config.data.root),
        images=section.images,
        masks=section.masks,
        image_suffix=section.image_suffix,
        mask_suffix=section.mask_suffix,
        lists=lists,
        shares={"val": section.val_share, "test": section.test_share},
        seed=section.split_seed,
    )


def _look_for_absent_classes(pixels: np.ndarray, files: PairedFiles, *, console: Console) -> None:
    """Tell of classes that no training image shows.

    Raises:
        DataError: if there is only one that any of them shows: then nothing can be told apart.
    """
    statistics = class_statistics(pixels)
    names = files.taxonomy.names
    absent = [name for name, count in zip(names, statistics.pixels, strict=True) if not count]
    if len(absent) == len(names) - 1:
        (only,) = set(names) - set(absent)
        ignored = pixels[:, -1].sum() / max(1, pixels.sum())
        raise DataError(
            f"in all {len(files)} training masks the only class is {only!r} ({ignored:.1%} of the pixels are ignored). "
            "If masks use other values than 0, 1, 2 ..., say which: data.folder.classes: [..., "
            f"{{name: {absent[-1]}, values: [255]}}]"
        )
    if absent:
        warn(
            console,
            f"no training mask has a pixel of {', '.join(absent)}: the network cannot learn that",
        )
