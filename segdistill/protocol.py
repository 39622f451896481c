"""How a score came about; a number without it cannot be compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict


class Protocol(BaseModel):
    """
    Attributes:
        data: kind of the data set.
        split: that was scored.
        images: in it.
        input_size: (height, width) in pixels at which a network saw an image, or words if there is no one size;
            None for masks.
        view: whole image, sliding window, or where masks lie.
        test_time_augmentation: in words; None without.
        scored_at: the size at which predictions and labels were compared.
        ignored: what was left out.
        weights: which they are, in words.
        epochs: of the training.
        training_crop: (height, width) in pixels.
        sampling: of the training images.
        boundary: how wide it is, if its IoU was measured.
        calibration: its bins, if its error was measured.
        data_root: where the images lie, if that is not where the network's own data do.
        split_hash: see `data_hash`, of the split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    split: str
    images: int
    input_size: tuple[int, int] | str | None
    view: str
    test_time_augmentation: str | None
    scored_at: str
    ignored: str
    weights: str
    epochs: int | None = None
    training_crop: tuple[int, int] | None = None
    sampling: str | None = None
    boundary: str | None = None
    calibration: str | None = None
    data_root: str | None = None
    split_hash: str | None = None

    def but(self, **changes: Any) -> "Protocol":
        """The same with some fields changed."""
        return Protocol(**dict(self) | changes)

    def on(self, place: Path | None, split_hash: str | None) -> "Protocol":
        """The same of images that lie elsewhere, or of which it is now known which they are."""
        return self.but(data_root=None if place is None else str(place), split_hash=split_hash)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without fields that have no value; of those that have to be given, None is one."""
        values = self.model_dump(mode="json")
        given = {key for key, field in type(self).model_fields.items() if field.is_required()}
        return {key: value for key, value in values.items() if value is not None or key in given}

    @property
    def words(self) -> str:
        """One line that may stand beside a score."""
        size = self.input_size
        seen = f" at {size if isinstance(size, str) else 'x'.join(map(str, size))}" if size else ""
        place = f" in {self.data_root}" if self.data_root else ""
        parts = [
            f"{self.data}{place} {self.split}, {self.images} images",
            f"{self.view}{seen}",
            f"test-time augmentation: {self.test_time_augmentation or 'none'}",
            f"scored at {self.scored_at}, {self.ignored} ignored",
            f"weights: {self.weights}",
        ]
        measured = {"boundary": self.boundary, "calibration": self.calibration}
        return "; ".join([*parts, *(f"{what}: {how}" for what, how in measured.items() if how)])


class Score(BaseModel):
    """What an exported file says of its worth.

    Attributes:
        miou: a share in 0..1; None if no labelled pixel was scored.
        of: this file, or the network in torch that it was made from.
        protocol: of the score.
        float_layers: groups of layers that int8 has left as they were; None in other precisions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    miou: float | None
    of: str
    protocol: Protocol
    float_layers: Sequence[str] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {"miou": self.miou, "of": self.of, "protocol": self.protocol.as_dict()}
        return values if self.float_layers is None else values | {"float_layers": list(self.float_layers)}
