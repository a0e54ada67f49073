"""Objects become pixels."""

import numpy as np
import pytest

from semipix.data.annotations.drawing import (
    BOXES,
    CLIPPED,
    FEW_POINTS,
    HIDDEN,
    OUTSIDE,
    SMALL,
    Shape,
    clipped,
    draw,
    runs_of,
)
from semipix.data.annotations.entries import Drawn, Frame, Notes, UnusableError
from tests.helpers.annotated import SIZE, box, filled

coco = pytest.importorskip("pycocotools.mask")

INDICES = {"leaf": 1, "bug": 2}


def shape(label: str | None, corners: list[float]) -> Shape:
    return Shape(label, label or "void", [np.array(corners, float).reshape(-1, 2)])


def drawing(*shapes: Shape, fill: int = 0, orientation: int = 1) -> Drawn:
    return draw(shapes, Frame(SIZE, orientation), INDICES, fill, Notes())


def test_smaller_objects_are_drawn_over_larger_ones() -> None:
    small, large = shape("bug", box(2, 2, 4, 4)), shape("leaf", box(1, 1, 7, 6))
    expected = filled()
    expected[1:6, 1:7] = 1
    expected[2:4, 2:4] = 2
    for order in ((small, large), (large, small)):
        drawn = drawing(*order)
        assert drawn.mask.tolist() == expected.tolist()
        assert drawn.objects == {"leaf": 1, "bug": 1}


def test_objects_of_no_class_are_void() -> None:
    drawn = drawing(shape("leaf", box(0, 0, 10, 8)), shape(None, box(0, 0, 3, 2)), fill=255)
    expected = filled(1)
    expected[:2, :3] = 255
    assert drawn.mask.tolist() == expected.tolist()
    assert drawn.objects == {"leaf": 1}


def test_all_that_is_left_out_is_counted() -> None:
    notes = drawing(
        shape("leaf", box(-3, -3, 5, 5)),
        shape("bug", box(-9, 2, -3, 4)),
        shape("bug", box(4.1, 4.1, 4.2, 4.2)),
        Shape("bug", "boxed", box=np.array([6.0, 6, 1.5, 1])),
        Shape("leaf", "lines", [np.array([[1.0, 1], [2, 2]]), np.array(box(7, 0, 9, 2)).reshape(-1, 2)]),
        shape("bug", box(8, 4, 10, 6)),
        shape("leaf", box(8, 4, 10, 6)),
    ).notes
    for what in (CLIPPED, OUTSIDE, SMALL, BOXES, FEW_POINTS, HIDDEN):
        assert notes.count(what) == 1, what
    assert f"1 {BOXES} (boxed)" in notes.lines()


def test_a_box_is_void_where_nothing_is_drawn() -> None:
    drawn = drawing(Shape("bug", "boxed", box=np.array([1.2, 1, 3, 3])), shape("leaf", box(0, 0, 2, 8)))
    expected = filled()
    expected[1:4, 1:5] = 255
    expected[:, :2] = 1
    assert drawn.mask.tolist() == expected.tolist()


def test_outlines_of_huge_numbers_are_cut_off_first() -> None:
    """pycocotools would allocate memory for each pixel of their length."""
    assert (drawing(shape("leaf", box(-1e12, -1e12, 1e12, 3))).mask[:3] == 1).all()
    with pytest.raises(UnusableError, match="leaf: a coordinate is no finite number"):
        drawing(shape("leaf", [0, 0, float("nan"), 3, 4, 5]))


def test_clipping_keeps_slanted_edges() -> None:
    triangle = np.array([(-2.0, 0.0), (8, 0), (-2, 10)])
    points = clipped(triangle, 5, 5)
    assert sorted(map(tuple, points.tolist())) == [(0, 0), (0, 5), (3, 5), (5, 0), (5, 3)]
    assert not len(clipped(triangle + 100, 5, 5))


def test_a_run_length_code_is_listed_or_compressed() -> None:
    pixels = np.random.default_rng(0).random(SIZE) < 0.4
    code = coco.encode(np.asfortranarray(pixels, np.uint8))
    text = code["counts"].decode()
    runs = runs_of(text)
    assert sum(runs) == pixels.size
    for counts in (text, runs):
        drawn = drawing(Shape("bug", "a", rle={"size": list(SIZE), "counts": counts}))
        assert drawn.mask.tolist() == np.where(pixels, 2, 0).tolist()


@pytest.mark.parametrize("counts", ["", "0", "zzzz", "52203\x01", [80, 1], [-1, 81], [1.5, 78.5], None])
def test_damaged_run_length_codes_are_refused(counts: object) -> None:
    """pycocotools reads beyond some of them."""
    with pytest.raises(UnusableError, match="damaged run-length code"):
        drawing(Shape("bug", "a", rle={"size": list(SIZE), "counts": counts}))


def test_a_run_length_code_has_the_size_of_its_image() -> None:
    with pytest.raises(UnusableError, match="a run-length code for 9x4 pixels, expected 10x8"):
        drawing(Shape("bug", "a", rle={"size": [4, 9], "counts": [36]}))


def test_a_patch_lies_where_its_corner_says() -> None:
    patch = np.array([[True, False], [True, True]])
    expected = filled()
    expected[6, 8], expected[7, 8:10] = 1, 1
    drawn = drawing(Shape("leaf", "a", patch=patch, corner=(8, 6)))
    assert drawn.mask.tolist() == expected.tolist()
    drawn = drawing(Shape("leaf", "a", patch=patch, corner=(9, 7)))
    assert (drawn.mask.sum(), drawn.notes.count(CLIPPED)) == (1, 1)
    assert drawing(Shape("leaf", "a", patch=patch, corner=(99, -99))).notes.count(OUTSIDE) == 1


def test_masks_drawn_on_stored_pixels_are_turned() -> None:
    drawn = drawing(shape("leaf", box(0, 0, 2, 1)), orientation=6)
    assert drawn.mask.shape == SIZE[::-1]
    assert np.argwhere(drawn.mask).tolist() == [[0, 7], [1, 7]]
