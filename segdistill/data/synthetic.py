"""Synthetic street scenes with CamVid's labels: drawn from a seed, so no download and no licence.

A camera over a road looks to the vanishing point. Sky, ground, house fronts, then everything that stands in
the street are painted from far to near on a canvas of twice the size; the image is averaged down, the mask is
sampled, so that labels stay hard. The painters are in `segdistill.data.street`.
"""

from dataclasses import dataclass

import numpy as np

from segdistill.data.samples import LabelledImage
from segdistill.data.street.background import paint_sky
from segdistill.data.street.camera import annotate, develop
from segdistill.data.street.ground import cast_shadows, paint_ground
from segdistill.data.street.objects import paint_bonnet
from segdistill.data.street.placement import footprints, things_on_pavements, things_on_plots, things_on_road
from segdistill.data.street.plan import plan_plots
from segdistill.data.street.scene import Scene
from segdistill.data.street.walls import paint_street_end
from segdistill.data.taxonomy import CAMVID, Taxonomy

SPLITS = ("train", "val", "test")


def render_scene(*, seed: int, index: int, height: int, width: int, split: str = "train") -> LabelledImage:
    """Draw one street: a pure function of its arguments.

    Args:
        seed: of the data set; >= 0.
        index: of the scene within its split; >= 0.
        height, width: of the result, in pixels; another size of the same shape shows the same street.
        split: "train", "val" or "test"; each draws random numbers of its own.

    Returns:
        image (H, W, 3) uint8 RGB and mask (H, W) uint8 in 0..11.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    scene = Scene.empty(rng, height, width)
    plots = plan_plots(rng, scene.street)
    things = [
        *things_on_plots(rng, plots, scene.street),
        *things_on_pavements(rng, scene.street),
        *things_on_road(rng, scene.street),
    ]
    paint_sky(scene)
    paint_ground(scene, plots)
    cast_shadows(scene, footprints(scene.light, plots, things))
    paint_street_end(scene)
    for thing in sorted(things, key=lambda thing: -thing.z):
        thing.paint(scene)
    if rng.random() < 0.3:
        paint_bonnet(scene)
    mask = annotate(rng, scene.mask)
    return LabelledImage(image=develop(rng, scene.image), mask=mask)


@dataclass(frozen=True)
class SyntheticStreets:
    """A split of the synthetic data set; scene i does not depend on how many there are.

    Attributes:
        split: "train", "val" or "test": different scenes.
        length: number of scenes.
        height, width: of every image, in pixels.
        seed: of the data set; the splits of one seed never share a scene.
    """

    split: str
    length: int
    height: int
    width: int
    seed: int

    @property
    def taxonomy(self) -> Taxonomy:
        return CAMVID

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return f"{self.split}_{index:05d}"

    def load(self, index: int) -> LabelledImage:
        size = {"height": self.height, "width": self.width}
        return render_scene(seed=self.seed, split=self.split, index=index, **size)
