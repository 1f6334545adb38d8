"""The album: of alike pictures the newest stays, or the first; what is unlike the rest stays; a flash stays out."""

from __future__ import annotations

import numpy as np
import pytest

from salmonn_node.memory.album import FIRST, NEWEST, Album, Picture, describe, likeness

SCENES = np.random.default_rng(0).integers(0, 256, (6, 9, 16, 3), dtype=np.uint8).repeat(10, 1).repeat(10, 2)


def visited(keep: str, visits: int = 8) -> Album:
    """An album of six pictures after scene 5 was seen once and the others again and again, three pictures a visit."""
    album, stamp = Album(6, keep), 0
    for visit in range(visits):
        for scene in range(6):
            if scene == 5 and visit != 3:
                continue
            for _ in range(3):
                album.offer(Picture(0, stamp, b""), describe(SCENES[scene]))
                stamp += 1
    return album


def test_of_alike_pictures_the_newest_or_the_first_stays_and_the_rare_one_too() -> None:
    newest, first = ([p.stamp_ns for p in visited(keep).pictures] for keep in (NEWEST, FIRST))
    assert len(newest) == len(first) == 6
    rare = {3 * 15 + 16, 3 * 15 + 17}
    assert rare & set(newest)
    assert rare & set(first)
    # Each of the five others was seen in the first 15 pictures, and in the last 15 of 123.
    assert sum(stamp >= 123 - 15 for stamp in newest) == 5
    assert sum(stamp < 15 for stamp in first) == 5


def test_what_lasts_one_picture_stays_out() -> None:
    for keep in (NEWEST, FIRST):
        album = Album(6, keep)
        for stamp, scene in enumerate((0, 0, 1, 0, 0)):
            album.offer(Picture(0, stamp, b""), describe(SCENES[scene]))
        assert 2 not in [p.stamp_ns for p in album.pictures]


def test_a_picture_taken_a_little_elsewhere_is_more_alike_than_another_scene() -> None:
    wide = np.random.default_rng(1).integers(0, 256, (13, 20, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    here, beside = describe(wide[:90, :160]), describe(wide[10:100, 20:180])  # moved by about two of the 16 pixels
    others = np.stack([describe(scene) for scene in SCENES])
    (same,), (moved,) = likeness(here[None], here), likeness(here[None], beside)
    assert same == pytest.approx(1, abs=1e-5)
    assert moved > float(here @ beside) + 0.1
    assert moved > float(likeness(others, here).max()) + 0.1


@pytest.mark.parametrize(("size", "keep", "words"), [(1, NEWEST, "size"), (6, "best", "keep")])
def test_settings_that_make_no_sense_are_refused(size: int, keep: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Album(size, keep)
