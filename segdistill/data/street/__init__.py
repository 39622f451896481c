"""The painters behind `segdistill.data.synthetic`: a street is planned in metres and painted on a canvas.

World coordinates: x to the right, y up, z ahead of the camera; the camera stands over x = 0 at z = 0.
"""
