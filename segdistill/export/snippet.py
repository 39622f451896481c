"""A few lines that run an exported file without this package."""

import json

from segdistill.export.description import CLASS_INDEX, CONFIDENCE, LOGITS, NORMALIZED_IMAGE, RGB_IMAGE
from segdistill.export.onnx_file import OnnxFile


def python_snippet(file: OnnxFile) -> str:
    """At most 15 lines of Python that segment `photo.jpg` into `classes`, with numpy, Pillow and ONNX Runtime."""
    described = file.description
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "from PIL import Image",
        "",
        f"session = onnxruntime.InferenceSession({json.dumps(file.path.name, ensure_ascii=False)})",
        'photo = Image.open("photo.jpg").convert("RGB")',
    ]
    wanted = file.fixed_size or (described.size if described.input == "tensor" else None)
    if wanted:
        # As it is scored: a large photo is reduced by the mean over each pixel's area.
        lines += [
            f"kernel = Image.Resampling.BOX if photo.width > {wanted[1]} else Image.Resampling.BILINEAR",
            f"photo = photo.resize(({wanted[1]}, {wanted[0]}), kernel)",
        ]
    axes = ".transpose(2, 0, 1)" if described.layout == "nchw" else ""
    batch = f"np.stack({file.fixed_batch} * [image{axes}])" if file.fixed_batch else f"image{axes}[None]"
    if described.input == "image" and described.confidence:
        lines += [
            "image = np.asarray(photo)",
            f'outputs = session.run(["{CLASS_INDEX}", "{CONFIDENCE}"], {{"{RGB_IMAGE}": {batch}}})',
            "classes, confidence = (one[0] for one in outputs)  # (height, width) uint8, and float32 in 0..1",
        ]
    elif described.input == "image":
        lines += [
            "image = np.asarray(photo)",
            f'classes = session.run(["{CLASS_INDEX}"], {{"{RGB_IMAGE}": {batch}}})[0][0]  # (height, width) uint8',
        ]
    else:
        mean, std = described.normalisation.mean, described.normalisation.std
        lines += [
            f"image = ((np.asarray(photo) / 255 - {list(mean)}) / {list(std)}).astype(np.float32)",
            f'logits = session.run(["{LOGITS}"], {{"{NORMALIZED_IMAGE}": {batch}}})[0]',
            "classes = logits[0].argmax(0)  # (height, width)",
        ]
    return "\n".join(lines)
