"""segdistill: trains small segmentation networks by self-distillation, at no cost on the device."""

import os

# Albumentations asks the network for its newest version when imported; a training program must not.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.2.0"
