"""A few lines that run an exported file without this package."""

import json

from segdistill.export.description import CLASS_INDEX, CONFIDENCE, LOGITS, NORMALIZED_IMAGE, RGB_IMAGE
from segdistill.export.onnx_file import OnnxFile


def python_snippet(file: OnnxFile) -> str:
    """At most 15 lines of Python that segment `photo.jpg` into `classes`, with numpy, Pillow and ONNX Runtime."""
    described = file.description
    wanted = file.fixed_size or (described.size if described.input == "tensor" else None)
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "from PIL import Image",
        "",
        f"session = onnxruntime.InferenceSession({json.dumps(file.path.name, ensure_ascii=False)})",
        'photo = Image.open("photo.jpg").convert("RGB")',
        *(_resizing_lines(*wanted) if wanted else ["image = np.asarray(photo)"]),
        *_output_lines(file),
    ]
    return "\n".join(lines)


def _resizing_lines(height: int, width: int) -> list[str]:
    """From `photo` to `image` of this size in pixels, as it is scored: bilinear where it grows, else the mean over each
    new pixel's area, of which Pillow's BOX is only a rough form. What lies of an old pixel below two edges of new ones
    differs by their share of it."""
    larger = f"(max(photo.width, {width}), max(photo.height, {height}))"
    overlaps = "np.clip(np.linspace(0, old, new + 1)[:, None] - np.arange(old), 0, 1)"
    return [
        f"photo = photo.resize({larger}, Image.Resampling.BILINEAR)",
        "def means(old, new):  # (new, old), how much of every old pixel is in a new one",
        f"    return np.diff({overlaps}, axis=0) * new / old",
        f"rows, columns = means(photo.height, {height}), means(photo.width, {width})",
        'image = np.einsum("hy,yxc,wx->hwc", rows, np.asarray(photo), columns, optimize=True)',
        "image = image.round().astype(np.uint8)",
    ]


def _output_lines(file: OnnxFile) -> list[str]:
    """From `image` to `classes`."""
    described = file.description
    axes = ".transpose(2, 0, 1)" if described.layout == "nchw" else ""
    batch = f"np.stack({file.fixed_batch} * [image{axes}])" if file.fixed_batch else f"image{axes}[None]"
    if described.input == "tensor":
        mean, std = described.normalisation.mean, described.normalisation.std
        return [
            f"image = ((image / 255 - {list(mean)}) / {list(std)}).astype(np.float32)",
            f'logits = session.run(["{LOGITS}"], {{"{NORMALIZED_IMAGE}": {batch}}})[0]',
            "classes = logits[0].argmax(0)  # (height, width)",
        ]
    if described.confidence:
        return [
            f'outputs = session.run(["{CLASS_INDEX}", "{CONFIDENCE}"], {{"{RGB_IMAGE}": {batch}}})',
            "classes, confidence = (one[0] for one in outputs)  # (height, width) uint8, and float32 in 0..1",
        ]
    return [
        f'classes = session.run(["{CLASS_INDEX}"], {{"{RGB_IMAGE}": {batch}}})[0][0]  # (height, width) uint8'
    ]
