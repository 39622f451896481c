"""What `summary.json` says of a run: written when a training ends, read by all that speak of the run afterwards."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from segdistill.protocol import Protocol
from segdistill.streams import ENSEMBLE, PRIMARY

SUMMARY = "summary.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StreamMiou(_Part):
    """mIoU of every stream, a share in 0..1; None where there is no such stream or no labelled pixel."""

    primary: float | None
    branches: dict[str, float | None]
    ensemble: float | None

    def of(self, stream: str) -> float | None:
        """Raises KeyError if there is no such branch."""
        return {PRIMARY: self.primary, ENSEMBLE: self.ensemble, **self.branches}[stream]


class BestEpoch(_Part):
    """The epoch with the highest mIoU of the primary on val; None if none was scored."""

    epoch: int | None
    miou: float | None


class Seconds(_Part):
    training: float
    per_step: float


class TrainedData(_Part):
    """What a run was trained and scored on; for the hashes see `data_hash`."""

    training_images: int
    hash: str
    splits: dict[str, str]


class RunSummary(_Part):
    """The scores are shares in 0..1 of the deployed primary on val, unless said otherwise."""

    name: str
    method: str
    seed: int
    first_weights: str | None  # SHA-256 of the file they came from, if they did
    miou: StreamMiou
    frequency_weighted_iou: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None
    iou: dict[str, float | None]  # by class; None for a class that does not occur
    best: BestEpoch
    parameters: int
    macs: int  # multiply-adds of one image at the trained size
    seconds: Seconds
    memory_bytes: int | None  # peak of training and scoring; None where the platform does not tell
    steps: int
    onnx: dict[str, Any] | None  # size and parity of the exported file; None until it is there
    versions: dict[str, str]
    devices: str  # it was trained on, `4 x cuda`; several after one another if it was resumed elsewhere
    data: TrainedData
    protocol: Protocol

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return self.model_dump() | {"protocol": self.protocol.as_dict()}

    @classmethod
    def read(cls, path: Path) -> "RunSummary":
        """Raises OSError if the file cannot be read, ValueError if it is damaged or of another version."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc'])) or path.name}: {first['msg']}") from None

    @property
    def software(self) -> tuple[str, ...]:
        """Every package with its version, in words."""
        return tuple(f"{name} {version}" for name, version in self.versions.items())
