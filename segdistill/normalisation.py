"""How an image's numbers are brought to what a network's weights expect."""

from typing import NamedTuple

Triple = tuple[float, float, float]


class Normalisation(NamedTuple):
    """Mean and standard deviation per RGB channel on the 0..1 scale; they belong to the encoder's weights."""

    mean: Triple
    std: Triple


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
