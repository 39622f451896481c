"""`segdistill prepare-data`: whether a data set is there and whole, and what is in it."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segdistill.build.splits import build_splits, build_taxonomy
from segdistill.commands.tables import percent
from segdistill.config import Config
from segdistill.config_data import DataConfig
from segdistill.config_io import load_config
from segdistill.console import counted
from segdistill.data import cityscapes
from segdistill.data.statistics import ClassStatistics, class_statistics, count_pixels
from segdistill.files import expanded, make_room, write_json

_SPLITS = ("train", "val")  # what a training needs


def check_cityscapes(root: Path, *, quick: bool, console: Console) -> None:
    """Print what is there of Cityscapes, and open every training and validation image and mask.

    Args:
        root: the folder of leftImg8bit and gtFine.
        quick: count files only.
        console: to print on.

    Raises:
        DataError: saying what is missing and where to get it, or what is wrong with which file.
    """
    console.print(cityscapes.describe_tree(expanded(root)))
    if not quick:
        config = Config(name="cityscapes", data=DataConfig(kind="cityscapes", root=root, cache=False))
        build_splits(config, _SPLITS, console=console)
        console.print("every training and validation image and mask can be read")
    console.print(f"train on it by data.root={shlex.quote(str(root))}")


def print_statistics(path: Path, overrides: Sequence[str], *, out: Path | None, console: Console) -> None:
    """Check all training and validation data of a configuration, and print how often its classes occur.

    Args:
        path: YAML file of the configuration.
        overrides: `key.sub=value`.
        out: of the same numbers as JSON; None for none.
        console: to print on.

    Raises:
        ConfigError: for a wrong configuration.
        DataError: listing every problem by file.
        PathError: if `out` cannot be written.
    """
    config = load_config(path, overrides)
    if out is not None:
        make_room(out, option="--out")
    # Weights that do not fit the classes are what one comes here for.
    supervised = config.method.supervised.model_copy(update={"class_weights": None})
    method = config.method.model_copy(update={"supervised": supervised})
    splits = build_splits(config.model_copy(update={"method": method}), _SPLITS, console=console)
    names = build_taxonomy(config).names
    pixels = {
        name: split.pixels if len(split.pixels) else count_pixels(split.samples)
        for name, split in splits.items()
    }
    statistics = {name: class_statistics(counts) for name, counts in pixels.items()}
    weights = [float(f"{weight:.4g}") if weight else 1.0 for weight in statistics["train"].weights]
    if out is not None:
        write_json(
            out,
            {
                "data": config.data.kind,
                "splits": {name: _as_dict(one, names, len(pixels[name])) for name, one in statistics.items()},
                "class_weights": weights,
            },
        )
    console.print(_table(statistics, names))
    for name, counts in pixels.items():
        ignored = counts[:, -1].sum() / max(1, counts.sum())
        console.print(f"{name}: {counted(len(counts), 'image')}, {ignored:.2%} of the pixels ignored")
    console.print(
        "\nmedian-frequency weights of the training images, to be put behind train.py CONFIG (1 for classes that "
        f"never occur):\n'method.supervised.class_weights=[{','.join(f'{weight:g}' for weight in weights)}]'",
    )


def _table(statistics: Mapping[str, ClassStatistics], names: Sequence[str]) -> Table:
    table = Table("class", "weight", "pixels", box=box.SIMPLE_HEAD)
    for split in statistics:
        table.add_column(f"{split} %")
        table.add_column("images")
    for column in table.columns[1:]:
        column.justify = "right"
    train = statistics["train"]
    for place, name in enumerate(names):
        weight = train.weights[place]
        cells = [
            cell
            for one in statistics.values()
            for cell in (percent(one.shares[place]), str(one.images[place]))
        ]
        table.add_row(
            Text(name), "-" if weight is None else f"{weight:.3f}", str(train.pixels[place]), *cells
        )
    return table


def _as_dict(statistics: ClassStatistics, names: Sequence[str], images: int) -> dict[str, Any]:
    return {
        "images": images,
        "classes": {
            name: {
                "pixels": statistics.pixels[place],
                "share": statistics.shares[place],
                "images": statistics.images[place],
                "weight": statistics.weights[place],
            }
            for place, name in enumerate(names)
        },
    }
