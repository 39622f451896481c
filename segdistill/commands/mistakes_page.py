"""`evaluate --worst N --confusions`: the page that shows where the IoU is lost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from segdistill.commands.subjects import Subject
from segdistill.console import tracked
from segdistill.data.samples import LabelledImage
from segdistill.data.taxonomy import Taxonomy
from segdistill.evaluation.evaluator import Labelling
from segdistill.evaluation.metrics import Scores
from segdistill.evaluation.mistakes import (
    ImageCounts,
    Mix,
    components,
    examples_of,
    most_mixed_up,
    worst_images,
    worst_regions,
)
from segdistill.files import write_text
from segdistill.report.mistakes import MixedPair, Scene, WrongImage, WrongRegion, mistakes_page

_REGIONS = 6  # boxes in an image
_EXAMPLES = 3  # of a pair of classes


class MistakeCounts:
    """The confusion of every image by the first stream; the images themselves are not kept."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy
        self.found: list[ImageCounts] = []

    def watch(self, index: int, sample: LabelledImage, said: Mapping[str, Labelling]) -> None:
        self.found.append(
            ImageCounts.of(
                index,
                _first(said),
                sample.mask,
                num_classes=self._taxonomy.num_classes,
                ignore_index=self._taxonomy.ignore_index,
            )
        )

    def gather(self, fabric: Fabric) -> None:
        """Collect the counts of all processes, in the order of the images."""
        if fabric.world_size > 1:
            shares: list[list[ImageCounts]] = [[] for _ in range(fabric.world_size)]
            torch.distributed.all_gather_object(shares, self.found)
            self.found = [one for share in shares for one in share]
        self.found.sort(key=lambda one: one.index)


def _first(said: Mapping[str, Labelling]) -> np.ndarray:
    """(H, W) uint8: the classes that the first stream gives."""
    return next(iter(said.values())).classes.cpu().numpy().astype(np.uint8)


def write_mistakes_page(
    path: Path,
    subject: Subject,
    found: Sequence[ImageCounts],
    scores: Mapping[str, Scores],
    *,
    protocol: str,
    images: int,
    pairs: int,
    console: Console,
) -> None:
    """Look once more at the images that are shown, and write the page.

    Args:
        path: of the HTML file.
        subject: what was scored.
        found: of every image of the split.
        scores: of the split; the first stream is looked at.
        protocol: of the scores, in words.
        images: how many of the worst to show, and of the worst regions; 0 for no such section.
        pairs: how many pairs of mixed-up classes to show; 0 for no such section.
        console: to print on.
    """
    stream, total = next(iter(scores.items()))
    taxonomy = subject.samples.taxonomy
    ranked = worst_images(found, total.confusion, most=len(found) if images else 0)
    shown_images, regions = worst_of(
        subject, tracked(ranked, "drawing the worst images", console=console), total.confusion, most=images
    )
    mixes = most_mixed_up(total.confusion, most=pairs)
    drawn = tracked(mixes, "drawing mixed-up classes", console=console)
    shown_pairs = [_mixed_pair(subject, found, mix) for mix in drawn]
    write_text(
        path,
        mistakes_page(
            f"Errors of {stream}: mIoU {100 * total.miou:.2f} %",
            protocol=protocol,
            legend=list(zip(taxonomy.names, taxonomy.colours, strict=True)),
            images=shown_images,
            regions=regions,
            pairs=shown_pairs,
        ),
    )
    if ranked:
        place, gain = ranked[0]
        console.print(
            f"worst image: {subject.samples.name(place.index)}, {100 * gain:.3f} points of mIoU",
        )
    for mix in mixes:
        console.print(
            f"{100 * mix.share:5.1f} % of {_words(taxonomy, mix.true, mix.predicted)}",
        )
    console.print(f"-> {path}")


def worst_of(
    subject: Subject, ranked: Iterable[tuple[ImageCounts, float]], confusion: Tensor, *, most: int
) -> tuple[list[WrongImage], list[tuple[Scene, WrongRegion]]]:
    """The worst images, and the worst regions of all images.

    No region gains more than its image does, so the images are gone through only until the next one gains no more
    than the last of the regions found.

    Args:
        subject: what was scored.
        ranked: all images that cost anything, with what they cost (0..1), the worst first.
        confusion: (C, C) int64, of the whole split.
        most: how many images, and how many regions.
    """
    images: list[WrongImage] = []
    regions: list[tuple[Scene, WrongRegion]] = []
    for image, gain in ranked:
        if len(images) == most and len(regions) == most and 100 * gain <= regions[-1][1].gain:
            break
        wrong = _wrong_image(subject, image.index, gain, confusion, most=max(most, _REGIONS))
        regions += [(wrong.scene, region) for region in wrong.regions]
        regions = sorted(regions, key=lambda one: -one[1].gain)[:most]
        if len(images) < most:
            images.append(replace(wrong, regions=wrong.regions[:_REGIONS]))
    return images, regions


def _wrong_image(subject: Subject, index: int, gain: float, confusion: Tensor, *, most: int) -> WrongImage:
    taxonomy = subject.samples.taxonomy
    sample, classes, scene = _scene(subject, index)
    regions = worst_regions(classes, sample.mask, confusion, ignore_index=taxonomy.ignore_index, most=most)
    return WrongImage(
        scene,
        100 * gain,
        float(scene.wrong.sum() / (sample.mask != taxonomy.ignore_index).sum()),
        tuple(
            WrongRegion(
                region.box, _words(taxonomy, region.true, region.predicted), region.pixels, 100 * region.gain
            )
            for region in regions
        ),
    )


def _mixed_pair(subject: Subject, found: Sequence[ImageCounts], mix: Mix) -> MixedPair:
    taxonomy = subject.samples.taxonomy
    examples = []
    for image in examples_of(found, mix, num_classes=taxonomy.num_classes, most=_EXAMPLES):
        sample, classes, scene = _scene(subject, image.index)
        _, box = components((sample.mask == mix.true) & (classes == mix.predicted))[0]
        examples.append((scene, box))
    return MixedPair(_words(taxonomy, mix.true, mix.predicted), mix.share, mix.pixels, tuple(examples))


def _scene(subject: Subject, index: int) -> tuple[LabelledImage, np.ndarray, Scene]:
    """The image again, with the classes (H, W) uint8 that are seen in it."""
    taxonomy = subject.samples.taxonomy
    sample = subject.samples.load(index)
    classes = _first(subject.label(index, sample))
    wrong = (classes != sample.mask) & (sample.mask != taxonomy.ignore_index)
    scene = Scene(
        subject.samples.name(index),
        sample.image,
        taxonomy.colourise(sample.mask),
        taxonomy.colourise(classes),
        wrong,
    )
    return sample, classes, scene


def _words(taxonomy: Taxonomy, true: int, predicted: int) -> str:
    return f"{taxonomy.names[true]} taken for {taxonomy.names[predicted]}"
