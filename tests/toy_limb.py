"""A limb in CT and in T1, where what is bright in the one is not so in the other; any rigid pose, any grid."""

import numpy as np
import SimpleITK

CT = {"air": -1000, "fat": -100, "muscle": 50, "bone": 700, "tumour": 20}
T1 = {"air": 0, "fat": 900, "muscle": 300, "bone": 60, "tumour": 420}


def pose(translation=(0.0, 0.0, 0.0), degrees=0.0):
    """A rigid transform that turns about z."""
    transform = SimpleITK.Euler3DTransform()
    transform.SetRotation(0.0, 0.0, float(np.radians(degrees)))
    transform.SetTranslation(translation)
    return transform


def limb(values, transform=None, size=(64, 64, 40), spacing=(1.5, 1.5, 2.0), seed=0):
    """(image, mask of the tumour), centred on 0 mm; the point x shows what is at transform(x) in the limb."""
    grid = SimpleITK.Image(size, SimpleITK.sitkUInt8)
    grid.SetSpacing(spacing)
    grid.SetOrigin([-(number - 1) / 2 * voxel for number, voxel in zip(size, spacing, strict=True)])
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    points = (index * np.array(spacing) + grid.GetOrigin()).transpose(2, 1, 0, 3)
    if transform is not None:
        points = points @ np.reshape(transform.GetMatrix(), (3, 3)).T + transform.GetTranslation()
    x, y, z = np.moveaxis(points, -1, 0)
    tissue = np.full(x.shape, float(values["air"]))
    taper = 1 + z / 200
    tissue[(x / 40) ** 2 + (y / 34) ** 2 < taper] = values["fat"]
    tissue[(x / 34) ** 2 + ((y - 2) / 27) ** 2 < taper] = values["muscle"]
    tissue[(x - 12) ** 2 + (y + 6 + z / 4) ** 2 < 49 + z] = values["bone"]
    tumour = (x + 14) ** 2 + (y - 4) ** 2 + ((z - 3) / 1.3) ** 2 < 100
    tissue[tumour] = values["tumour"]
    tissue += np.random.default_rng(seed).normal(0, 15, tissue.shape)
    arrays = tissue.astype(np.int16), tumour.astype(np.uint8)
    images = [SimpleITK.GetImageFromArray(array) for array in arrays]
    for image in images:
        image.CopyInformation(grid)
    return images
