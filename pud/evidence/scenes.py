"""Which images of a class are of one scene, so that what is learned from one frame is not tested on the next.

Frames of a video, of one traffic sign, or of one sitting follow each other in a data set. Where its order was shuffled,
every image is its own scene, and so is one that somebody sorted to the end: parts of a class are drawn from all of it.
"""

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

SIDE = 8  # of the thumbnails that are compared, pixels
BY_CHANCE = 0.05  # of pairs from far apart in a class, that are as near as frames of one scene
AT_A_TIME = 64  # images, however large they are


def scenes(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the scene, int64 (n,), of each of uint8 images (n, c, h, w): numbers that no two classes share.

    An image is of the scene of the one before it in its class if they are nearer, in a thumbnail, than all but a few
    pairs that lie half the class apart.
    """
    small = np.concatenate(
        [
            adaptive_avg_pool2d(torch.from_numpy(some.astype(np.float32)), SIDE).flatten(1).numpy()
            for some in (images[first : first + AT_A_TIME] for first in range(0, len(images), AT_A_TIME))
        ]
    )
    found, total = np.zeros(len(labels), np.int64), 0
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        seen = small[rows]
        near = np.linalg.norm(seen[1:] - seen[:-1], axis=1)
        far = np.linalg.norm(seen - np.roll(seen, len(rows) // 2, axis=0), axis=1)
        found[rows[1:]] = np.cumsum(near >= np.quantile(far, BY_CHANCE))
        found[rows] += total
        total = found[rows].max() + 1
    return found


def parts(scene: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return a part, int64 (n,) from 0 to ``count`` - 1, for each image: its class's scenes (n,) are dealt in turn."""
    part = np.zeros(len(scene), np.int64)
    for label in np.unique(labels):
        members = labels == label
        part[members] = np.unique(scene[members], return_inverse=True)[1] % count
    return part
