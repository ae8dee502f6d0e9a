"""Near-duplicates among many pictures, in bounded time: by a small thumbnail of each.

A thumbnail's 64 signs of change from a pixel to the next (dHash) order the pictures four times, beginning with another
quarter of the signs each time; only neighbours in these orders are compared, so two that differ in at most three signs
meet, unless very many share a quarter.
"""

import numpy as np

NEIGHBOURS = 8
SIGNS_APART = 3
QUARTERS = 4
CHANGE = 2  # of 255: what a change from a pixel to the next must be above


def signs(thumbnails: np.ndarray) -> np.ndarray:
    """Return whether each pixel of thumbnails, uint8 (n, 8, 9), is brighter than the one on its left: uint8 (n, 8)."""
    left, right = thumbnails[:, :, :-1].astype(np.int16), thumbnails[:, :, 1:].astype(np.int16)
    return np.packbits((right - left > CHANGE).reshape(len(thumbnails), -1), axis=1)


def near_duplicates(thumbnails: np.ndarray, means: np.ndarray, tolerance: float) -> np.ndarray:
    """Return for each picture the first one of which it is a near-duplicate, or -1; int64 (n,).

    thumbnails: uint8 (n, 8, 9), grey; means: uint8 (n, 3), of red, green and blue. Two are near-duplicates if at most 3
    signs differ, their thumbnails by ``tolerance`` of 255 on the mean, and no colour's mean by more than that.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(thumbnails)
    known = signs(thumbnails)
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for quarter in range(QUARTERS):
        rolled = np.roll(known, 2 * quarter, axis=1)
        order = np.lexsort((*means.T[::-1], *rolled.T[::-1]))
        for step in range(1, min(NEIGHBOURS, count - 1) + 1):
            first, second = order[:-step], order[step:]
            alike = np.bitwise_count(known[first] ^ known[second]).sum(1) <= SIGNS_APART
            first, second = first[alike], second[alike]
            apart = np.abs(thumbnails[first].astype(np.int16) - thumbnails[second]).mean((1, 2))
            colours = np.abs(means[first].astype(np.int16) - means[second]).max(1)
            near = (apart <= tolerance) & (colours <= tolerance)
            firsts.append(first[near])
            seconds.append(second[near])
    pairs = np.concatenate(firsts), np.concatenate(seconds)
    graph = coo_array((np.ones(len(pairs[0]), bool), pairs), (count, count))
    _, group = connected_components(graph, directed=False)
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    found = first[inverse]
    return np.where(found == np.arange(count), -1, found)
