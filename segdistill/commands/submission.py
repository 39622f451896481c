"""Files for Cityscapes' evaluation server."""

from collections.abc import Mapping
from pathlib import Path

import torch
from lightning_fabric import Fabric
from PIL import Image

from segdistill.data.samples import LabelledImage, Samples
from segdistill.errors import EvaluationError
from segdistill.evaluation.evaluator import Labelling
from segdistill.evaluation.label_ids import SERVER_SIZE, frame_of, is_cityscapes, to_label_ids
from segdistill.files import write_atomically


class Submission:
    """`<city>_<sequence>_<frame>_pred.png` for every image: one channel of label ids, at the image's own size."""

    def __init__(self, folder: Path, samples: Samples) -> None:
        """Raises EvaluationError if the server could not take them."""
        if not is_cityscapes(samples.taxonomy):
            raise EvaluationError(
                f"--submit writes the label ids of Cityscapes' 19 classes; these data have others "
                f"({', '.join(samples.taxonomy.names)})"
            )
        nameless = [name for name in map(samples.name, range(len(samples))) if frame_of(name) is None]
        if nameless:
            raise EvaluationError(
                "\n  ".join(
                    [
                        "--submit needs images that are named by city, sequence and frame, like "
                        "aachen_000000_000019_leftImg8bit; these are not:",
                        *nameless,
                    ]
                )
            )
        self._folder = folder
        self._samples = samples
        self._sizes: set[tuple[int, int]] = set()  # (height, width) of the files, in pixels

    def watch(self, index: int, sample: LabelledImage, said: Mapping[str, Labelling]) -> None:
        """Write the file of an image, of its first stream."""
        classes = next(iter(said.values())).classes.cpu().numpy()
        self._sizes.add(classes.shape)
        picture = Image.fromarray(to_label_ids(classes))
        path = self._folder / f"{frame_of(self._samples.name(index))}_pred.png"
        write_atomically(path, lambda temporary: picture.save(temporary))

    def gather(self, fabric: Fabric) -> None:
        """Collect the sizes of all processes' files."""
        if fabric.world_size > 1:
            shares: list[set[tuple[int, int]]] = [set() for _ in range(fabric.world_size)]
            torch.distributed.all_gather_object(shares, self._sizes)
            self._sizes = set().union(*shares)

    def summary(self) -> str:
        """What was written, in one line."""
        return f"{len(self._samples)} label-id PNGs for Cityscapes' server in {self._folder}"

    def warning(self) -> str:
        """Why the server will not take the files; empty if it does."""
        unfit = [f"{height}x{width}" for height, width in sorted(self._sizes - {SERVER_SIZE})]
        if not unfit:
            return ""
        some = "some have" if SERVER_SIZE in self._sizes else "they have"
        sizes = ", ".join(unfit[:3]) + (", ..." if len(unfit) > 3 else "")
        high, wide = SERVER_SIZE
        return (
            f"{some} {sizes} pixels like the images, but the server takes {high}x{wide}: point data.root at the "
            "original images"
        )
