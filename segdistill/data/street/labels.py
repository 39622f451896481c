"""CamVid's classes by name."""

from segdistill.data.taxonomy import CAMVID

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(CAMVID.num_classes)
VOID = CAMVID.ignore_index
