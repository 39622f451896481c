"""What a network gets wrong, as one HTML page with pictures: the worst images, the worst regions, mixed-up classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from segdistill.report.overlay import Colour, blend
from segdistill.report.page import page, paragraph, section
from segdistill.report.pictures import boxed, context_of, embedded, error_map

_OPACITY = 0.6  # of the classes' colours
_CROP = 220  # pixels of a crop's height
_STYLE = """
.four { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .5rem }
.four figure, .crops figure { margin: 0 }
.four img { width: 100%; height: auto; display: block }
.crops { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem }
.crops figure { max-width: 100% }
.crops .three { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 2px }
.crops img { max-height: 11rem; max-width: min(21rem, 100%); width: auto; height: auto; display: block }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; list-style: none; font-size: .9rem }
.swatch { display: inline-block; width: .9em; height: .9em; border: 1px solid #8f979f; border-radius: 3px;
  margin-right: .4em; vertical-align: -.08em }
td.words, th.words { text-align: left }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere }
"""


@dataclass(frozen=True)
class WrongRegion:
    """
    Attributes:
        box: (top, left, bottom, right) in pixels of the image; bottom and right are the first beyond it.
        words: which class was taken for which.
        pixels: how many.
        gain: percentage points of the split's mIoU.
    """

    box: tuple[int, int, int, int]
    words: str
    pixels: int
    gain: float


@dataclass(frozen=True)
class Scene:
    """An image with what is there and what was seen.

    Attributes:
        name: of the image.
        image: (H, W, 3) uint8, RGB.
        label: (H, W, 3) uint8, painted in the colours of the true classes, void black.
        prediction: (H, W, 3) uint8, painted in the colours of the predicted ones.
        wrong: (H, W) bool.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    wrong: np.ndarray


@dataclass(frozen=True)
class WrongImage:
    """
    Attributes:
        scene: the image.
        gain: percentage points of the split's mIoU.
        wrong_share: of its labelled pixels, 0..1.
        regions: the worst ones, the worst first.
    """

    scene: Scene
    gain: float
    wrong_share: float
    regions: tuple[WrongRegion, ...]


@dataclass(frozen=True)
class MixedPair:
    """
    Attributes:
        words: which class is taken for which.
        share: of the true class's pixels, 0..1.
        pixels: in the split.
        examples: images with the box of an example.
    """

    words: str
    share: float
    pixels: int
    examples: tuple[tuple[Scene, tuple[int, int, int, int]], ...]


def mistakes_page(
    title: str,
    *,
    protocol: str,
    legend: Sequence[tuple[str, Colour]],
    images: Sequence[WrongImage],
    regions: Sequence[tuple[Scene, WrongRegion]],
    pairs: Sequence[MixedPair],
) -> str:
    """
    Args:
        title: what was scored, and its mIoU.
        protocol: how.
        legend: names and colours of the classes.
        images: the worst first; empty if they were not asked for.
        regions: with the images that they are in, the worst first.
        pairs: the most mixed up first; empty if they were not asked for.
    """
    parts = [
        paragraph(protocol, "note"),
        _legend(legend),
        section(
            "The images that cost the most",
            paragraph(
                "Ranked by what the split's mIoU would gain, in percentage points, if the image were predicted "
                "perfectly. Regions are connected pixels of one class taken for one other; the boxes are numbered "
                "as in the table below each image.",
                "note",
            ),
            *(_image(place, image) for place, image in enumerate(images, 1)),
        )
        if images
        else "",
        section(
            "The regions that cost the most",
            paragraph(
                "Ranked by what the split's mIoU would gain if the region alone were right. The pictures: "
                "image, label, prediction; the region in question is outlined.",
                "note",
            ),
            f'<div class="crops">{"".join(_region(scene, region) for scene, region in regions)}</div>',
        )
        if regions
        else "",
        section(
            "The classes most often mixed up",
            paragraph(
                "Ranked by the share of the true class's pixels that is given to the other class. The "
                "pictures: image, label, prediction.",
                "note",
            ),
            *(_pair(place, pair) for place, pair in enumerate(pairs, 1)),
        )
        if pairs
        else "",
    ]
    return page(title, parts, style=_STYLE)


def _legend(legend: Sequence[tuple[str, Colour]]) -> str:
    items = "".join(
        f'<li><span class="swatch" style="background:#{red:02x}{green:02x}{blue:02x}"></span>{escape(name)}</li>'
        for name, (red, green, blue) in legend
    )
    void = '<li><span class="swatch" style="background:#000"></span>void (not scored)</li>'
    return f'<ul class="legend">{items}{void}</ul>'


def _image(place: int, wrong: WrongImage) -> str:
    scene = wrong.scene
    boxes = [region.box for region in wrong.regions]
    panels = [
        ("image", scene.image),
        ("label", blend(scene.image, scene.label, opacity=_OPACITY)),
        ("prediction", blend(scene.image, scene.prediction, opacity=_OPACITY)),
        ("wrong pixels in red", error_map(scene.image, scene.wrong)),
    ]
    figures = "".join(
        f"<figure>{embedded(boxed(picture, boxes), f'{name} of {scene.name}')}"
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, picture in panels
    )
    rows = "".join(
        f'<tr><th scope="row">{number}</th><td class="words">{escape(region.words)}</td><td>{region.pixels}</td>'
        f"<td>{region.gain:.3f}</td></tr>"
        for number, region in enumerate(wrong.regions, 1)
    )
    head = "".join(
        f'<th scope="col"{kind}>{name}</th>'
        for name, kind in (("box", ""), ("region", ' class="words"'), ("pixels", ""), ("mIoU points", ""))
    )
    return (
        f"<h3>{place}. {escape(scene.name)}: {wrong.gain:.3f} points of mIoU, "
        f"{100 * wrong.wrong_share:.1f} % of its labelled pixels are wrong</h3>\n"
        f'<div class="four">{figures}</div>\n<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _region(scene: Scene, region: WrongRegion) -> str:
    caption = f"{region.words}: {region.gain:.3f} points, {region.pixels} px, {scene.name}"
    return _crops(scene, region.box, caption)


def _pair(place: int, pair: MixedPair) -> str:
    crops = "".join(_crops(scene, box, scene.name) for scene, box in pair.examples)
    return (
        f"<h3>{place}. {escape(pair.words)}: {100 * pair.share:.1f} % of its pixels ({pair.pixels} px)</h3>\n"
        f'<div class="crops">{crops}</div>'
    )


def _crops(scene: Scene, box: tuple[int, int, int, int], caption: str) -> str:
    """Image, label and prediction around a box, which is drawn."""
    window = context_of(box, scene.wrong.shape)
    rows, columns = slice(window[0], window[2]), slice(window[1], window[3])
    top, left, bottom, right = box
    inside = (top - window[0], left - window[1], bottom - window[0], right - window[1])
    image = scene.image[rows, columns]
    pictures = [
        image,
        blend(image, np.ascontiguousarray(scene.label[rows, columns]), opacity=_OPACITY),
        blend(image, np.ascontiguousarray(scene.prediction[rows, columns]), opacity=_OPACITY),
    ]
    height = max(_CROP, image.shape[0])
    drawn = "".join(
        embedded(boxed(picture, [inside], numbered=False, height=height), f"{name}: {caption}")
        for name, picture in zip(("image", "label", "prediction"), pictures, strict=True)
    )
    return f'<figure><div class="three">{drawn}</div><figcaption>{escape(caption)}</figcaption></figure>'
