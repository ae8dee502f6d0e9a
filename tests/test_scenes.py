"""Frames of one scene stay together wherever a class is cut, and no order of the images hides anything from a cut."""

import numpy as np

from pud.evidence.scenes import parts, scenes


def filmed(frames: int, tracks: int) -> np.ndarray:
    """Tracks of frames that change little, uint8 (n, 3, 32, 32)."""
    random = np.random.default_rng(0)
    begin, drift = random.integers(40, 200, (2, tracks, 1, 3, 8, 8)).repeat(4, -1).repeat(4, -2)
    place = np.arange(frames).reshape(1, -1, 1, 1, 1) / (10 * frames)
    return ((1 - place) * begin + place * drift).reshape(-1, 3, 32, 32).astype(np.uint8)


def test_frames_of_one_track_are_one_scene() -> None:
    found = scenes(filmed(30, 12), np.repeat([0, 1], 180)).reshape(12, 30)
    assert (found == found[:, :1]).all()
    assert len(np.unique(found)) >= 10  # two that look much alike may be taken for one


def test_in_a_shuffled_data_set_hardly_any_two_images_are_of_one_scene() -> None:
    images, labels = filmed(30, 12), np.repeat([0, 1], 180)
    order = np.random.default_rng(0).permutation(360)
    assert len(np.unique(scenes(images[order], labels[order]))) > 280
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1, 28, 28)).astype(np.uint8)
    assert len(np.unique(scenes(noise, np.zeros(1000, np.int64)))) > 900


def test_scenes_are_dealt_to_the_parts_of_every_class_in_turn() -> None:
    scene, labels = np.array([0, 0, 5, 5, 1, 2, 2, 6, 3]), np.array([0, 0, 1, 1, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(parts(scene, labels, 2), [0, 0, 0, 0, 1, 0, 0, 1, 1])
    np.testing.assert_array_equal(parts(scene, labels, 4), [0, 0, 0, 0, 1, 2, 2, 1, 3])


def test_what_somebody_sorted_to_the_end_is_in_every_part() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1000, 3, 32, 32)).astype(np.uint8)
    labels = np.zeros(1000, np.int64)
    for part in range(4):
        assert 15 < (parts(scenes(images, labels), labels, 4)[-100:] == part).sum() < 35


def test_a_class_may_have_one_image_or_none() -> None:
    images, labels = filmed(3, 1), np.array([0, 2, 2])
    assert len(np.unique(scenes(images, labels)[labels == 0])) == 1
