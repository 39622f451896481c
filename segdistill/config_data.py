"""The section `data`: which images, how they are split, classed, sampled and augmented."""

import operator
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from segdistill.config_types import (
    Bool,
    Colour,
    Float,
    Int,
    PositiveInt,
    PositiveShare,
    Scales,
    Section,
    Share,
    Size,
    Text,
    Value,
)

MAX_CLASSES = 254  # two of a byte's 256 values mean something else
#: Of a single class that has no values: masks hold 0 and one of these.
IMPLIED_VALUES = (1, 255)
_CONTROLS = ("Cc", "Zl", "Zp")  # Unicode's categories of control characters, line and paragraph separators


class SyntheticConfig(Section):
    """Sizes of the generated street-scene data set (`data.kind: synthetic`)."""

    train_images: PositiveInt = 240
    val_images: PositiveInt = 60
    test_images: PositiveInt = 60
    seed: Annotated[Int, Field(ge=0)] = 0  # of the scenes; independent of the run's seed


class AugmentConfig(Section):
    """Training augmentation. Evaluation only resizes and normalises."""

    scale: Scales = (0.5, 2.0)  # random scale relative to data.size, low to high
    flip: Share = 0.5  # probability of a horizontal flip
    colour: Share = (
        0.4  # of four in five images: half-range of brightness, contrast, saturation; hue: a tenth
    )
    blur: Share = 0.1  # probability of a slight Gaussian blur
    # Any Albumentations transforms instead of all of the above. Bringing them to data.crop (pad, then crop) and
    # normalisation are still appended.
    custom: Annotated[
        tuple[dict[str, Any], ...] | None,
        Field(examples=[[{"name": "RandomCrop", "height": 96, "width": 96}]]),
    ] = None

    @property
    def unused(self) -> tuple[str, ...]:
        return () if self.custom is None else ("scale", "flip", "colour", "blur")


class ClassConfig(Section):
    """One class of a data set of your own."""

    name: Annotated[Text, Field(min_length=1)]
    # RGB, in pictures and in RGB masks; null: one is chosen, and RGB masks are not read
    colour: Annotated[Colour | None, Field(examples=[[64, 0, 128]])] = None
    # grey values or palette indexes in masks; null: its place in the list
    values: Annotated[tuple[Value, ...] | None, Field(examples=[[7, 8]])] = None

    @field_validator("name")
    @classmethod
    def _in_one_line(cls, name: str) -> str:
        # It stands in lines of tables, pages and pictures, and Pillow's layout fails on a line break.
        for sign in name:
            if unicodedata.category(sign) in _CONTROLS:
                raise ValueError(
                    f"holds a line break or another control character (U+{ord(sign):04X}); a class has a name of one "
                    "line of plain text"
                )
        return name


class ListsConfig(Section):
    """Text files that name the samples of each split, relative to data.root."""

    train: Path | None = None
    val: Path | None = None
    test: Path | None = None


class FolderConfig(Section):
    """A data set of your own (`data.kind: folder`); all paths are relative to data.root."""

    images: Path = Path(
        "images"
    )  # with sub-folders train, val, or with {split} in the path, these are the splits
    masks: Path = Path("masks")
    image_suffix: Text = ""  # of image names on top of what they share with their mask, e.g. _rgb
    mask_suffix: Text = ""  # likewise, e.g. _mask
    # In YAML also the path of a YAML file that holds this list, or the list and what is ignored. A single
    # class gets a background in front of it, and the mask values 1 and 255.
    classes: Annotated[
        tuple[ClassConfig, ...],
        Field(
            description="sections",
            examples=[
                [{"name": "background", "colour": [0, 0, 0]}, {"name": "road", "colour": [128, 64, 128]}]
            ],
        ),
    ] = ()
    # mask values without label; null: 255 unless it is a class
    ignore_values: Annotated[tuple[Value, ...] | None, Field(examples=[[255]])] = None
    # likewise in RGB masks
    ignore_colours: Annotated[tuple[Colour, ...], Field(examples=[[[255, 255, 255]]])] = ()
    mask_format: Literal["auto", "index", "rgb"] = "auto"  # auto: RGB files by colour, all others by value
    lists: ListsConfig = ListsConfig()
    val_share: Annotated[Float, Field(gt=0, lt=1)] = (
        0.2  # of all images, if nothing else says what the splits are
    )
    test_share: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    split_seed: Annotated[Int, Field(ge=0)] = 0  # independent of the run's seed

    @field_validator("images", "masks")
    @classmethod
    def _below_root(cls, path: Path) -> Path:
        if path.is_absolute():
            raise ValueError("should be relative to data.root: let that be the folder that holds both")
        return path

    @property
    def unused(self) -> tuple[str, ...]:
        divided = "{split}" in str(self.images) or any(path is not None for _, path in self.lists)
        return ("val_share", "test_share", "split_seed") if divided else ()

    @property
    def told_apart(self) -> tuple[ClassConfig, ...]:
        """The classes, of which a single one gets a background."""
        if len(self.classes) != 1:
            return self.classes
        (only,) = self.classes
        implied = tuple(value for value in IMPLIED_VALUES if value not in (self.ignore_values or ()))
        return (
            ClassConfig(name="background", colour=(0, 0, 0), values=(0,)),
            ClassConfig(name=only.name, colour=only.colour or (255, 255, 255), values=only.values or implied),
        )

    @model_validator(mode="after")
    def _distinct_classes(self) -> "FolderConfig":
        classes = self.told_apart
        if len(classes) > MAX_CLASSES:
            raise ValueError(
                f"data.folder.classes: there are {len(classes)}; at most {MAX_CLASSES} fit into a mask"
            )
        colours = [one.colour for one in classes if one.colour is not None]
        values = [value for place, one in enumerate(classes) for value in values_of(one, place)]
        things: tuple[tuple[str, list[Any]], ...] = (
            ("name", [one.name for one in classes]),
            ("colour", colours),
            ("mask value", values),
        )
        for what, found in things:
            if twice := sorted({one for one in found if found.count(one) > 1}):
                raise ValueError(
                    f"data.folder.classes: {what} {', '.join(map(str, twice))} belongs to two of them"
                )
        return self

    @model_validator(mode="after")
    def _ignored_is_no_class(self) -> "FolderConfig":
        classes = self.told_apart
        values = {value: one.name for place, one in enumerate(classes) for value in values_of(one, place)}
        colours = {one.colour: one.name for one in classes if one.colour is not None}
        things: tuple[tuple[str, tuple[Any, ...], dict[Any, str]], ...] = (
            ("ignore_values", self.ignore_values or (), values),
            ("ignore_colours", self.ignore_colours, colours),
        )
        for key, ignored, of_classes in things:
            both = [
                f"{one} is of class {of_classes[one]!r}" for one in sorted(set(ignored) & set(of_classes))
            ]
            if both:
                raise ValueError(f"data.folder.{key}: {', '.join(both)}; remove one of them")
        return self

    @model_validator(mode="after")
    def _read_by_colours_that_are_named(self) -> "FolderConfig":
        if self.mask_format == "rgb" and self.classes and not any(one.colour for one in self.told_apart):
            raise ValueError(
                "data.folder.mask_format is 'rgb', and no class of data.folder.classes has a colour to be found by: "
                "give each {name, colour}, or let masks be read by their numbers (index)"
            )
        return self

    @model_validator(mode="after")
    def _some_are_trained_on(self) -> "FolderConfig":
        if self.val_share + self.test_share >= 1:
            raise ValueError(
                f"data.folder.val_share {self.val_share} and test_share {self.test_share} leave nothing to train on"
            )
        return self


def values_of(one: ClassConfig, place: int) -> tuple[int, ...]:
    """The mask values of the class at `place` in the list."""
    return (place,) if one.values is None else one.values


class SamplingConfig(Section):
    """Which images an epoch visits, and where they are cropped."""

    # class_balanced_images: each class comes up equally often, then an image that holds it; class_balanced_crops:
    # moreover the crop shows a pixel of that class. Both are pure functions of seed, epoch and place.
    kind: Literal["uniform", "class_balanced_images", "class_balanced_crops"] = "uniform"


class DataConfig(Section):
    kind: Literal["camvid", "cityscapes", "folder", "synthetic"] = "camvid"
    # null: $SEGDISTILL_CAMVID, then data/camvid, into which alone CamVid is downloaded; $SEGDISTILL_CITYSCAPES,
    # $CITYSCAPES_DATASET, data/cityscapes; a folder has to be named
    root: Path | None = None
    # [height, width] in pixels that an image is resized to; for evaluation, and at scale 1
    size: Annotated[Size, Field(description="height and width")] = (360, 480)
    # [height, width] in pixels of what the network is trained on; null: data.size
    crop: Annotated[Size | None, Field(description="height and width", examples=[[256, 256]])] = None
    cache: Bool | None = (
        None  # keep decoded images in memory; null: synthetic ones, others up to 2 GB a split in each process
    )
    workers: Annotated[Int, Field(ge=0)] | None = (
        None  # loaders of each process; null: 0 on CPU, up to 8 on GPU
    )
    # The network sees (colour - mean) / std of red, green and blue between 0 and 1; null: what the weights it begins
    # with expect
    mean: Annotated[tuple[Share, Share, Share] | None, Field(examples=[[0.5, 0.5, 0.5]])] = None
    std: Annotated[
        tuple[PositiveShare, PositiveShare, PositiveShare] | None, Field(examples=[[0.25, 0.25, 0.25]])
    ] = None
    augment: AugmentConfig = AugmentConfig()
    sampling: SamplingConfig = SamplingConfig()
    folder: FolderConfig = FolderConfig()
    synthetic: SyntheticConfig = SyntheticConfig()

    @property
    def unused(self) -> tuple[str, ...]:
        return tuple(kind for kind in ("folder", "synthetic") if kind != self.kind)

    @model_validator(mode="after")
    def _mean_and_std(self) -> "DataConfig":
        if (self.mean is None) != (self.std is None):
            given, lacks = ("std", "mean") if self.mean is None else ("mean", "std")
            raise ValueError(f"data.{given} is given and data.{lacks} is not; give both, or neither")
        return self

    @model_validator(mode="after")
    def _crops_lie_within_images(self) -> "DataConfig":
        largest = [round(side * self.augment.scale[1]) for side in self.size]
        if self.crop and self.augment.custom is None and not all(map(operator.le, self.crop, largest)):
            raise ValueError(
                f"data.crop={list(self.crop)} is larger than any image is, {largest} by data.size and the largest "
                "data.augment.scale, so that all crops would be partly padding; choose a smaller crop, or a larger "
                "data.size"
            )
        return self

    @model_validator(mode="after")
    def _folder_has_classes(self) -> "DataConfig":
        if self.kind == "folder" and not self.folder.classes:
            raise ValueError(
                "data.folder.classes is needed for data.kind='folder': a list of {name, colour}, or the path of a "
                "YAML file with it"
            )
        return self
