"""The boundary benchmark, on cases small enough to count by hand."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from picsnet.edge_benchmark import (
    BoolArray,
    FloatArray,
    ImageCounts,
    IntArray,
    evaluate_folder,
    evaluate_image,
    load_drawings,
    match_counts,
    nms,
    summarise,
    threshold_levels,
)
from picsnet.errors import DataError


def blank(height: int = 40, width: int = 40) -> BoolArray:
    return np.zeros((height, width), dtype=np.bool_)


def column(at: int, height: int = 40, width: int = 40) -> BoolArray:
    drawing = blank(height, width)
    drawing[:, at] = True
    return drawing


def counts(
    found: list[int], drawn: list[int], correct: list[int], predicted: list[int]
) -> ImageCounts:
    return ImageCounts(*(np.array(c, dtype=np.int64) for c in (found, drawn, correct, predicted)))


# --- matching ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "matched"), [(0, 40), (2, 40), (3, 0)])
def test_a_shifted_line_matches_within_the_tolerance_only(shift: int, matched: int) -> None:
    predicted, drawn = match_counts(column(20 + shift), column(20), 2.0)
    assert predicted.sum() == drawn.sum() == matched


def test_two_parallel_lines_cannot_share_one() -> None:
    predicted, drawn = match_counts(column(19) | column(22), column(20), 3.0)
    assert drawn.sum() == 40
    assert predicted.sum() == 40
    assert predicted[:, 19].all()  # the nearer line gets the matches
    assert not predicted[:, 22].any()


def test_matching_gives_up_the_nearest_pair_for_a_second_one() -> None:
    # Drawn pixels at 11 and 13, predicted ones at 8 and 11: the nearest pair is 11-11, but 8 can
    # only reach 11, so 11 has to go to 13.
    predicted, drawn = blank(1), blank(1)
    predicted[0, [8, 11]] = True
    drawn[0, [11, 13]] = True
    matched_predicted, matched_drawn = match_counts(predicted, drawn, 3.0)
    assert matched_predicted.sum() == matched_drawn.sum() == 2


@pytest.mark.parametrize(
    ("prediction", "truth"), [(blank(), column(5)), (column(5), blank()), (blank(), blank())]
)
def test_nothing_matches_an_empty_map(prediction: BoolArray, truth: BoolArray) -> None:
    predicted, drawn = match_counts(prediction, truth, 3.0)
    assert not predicted.any()
    assert not drawn.any()


def largest_matching(predicted: IntArray, drawn: IntArray, reach: float) -> int:
    """Size of the largest matching by Hall's theorem (Koenig's deficiency), over all subsets."""
    near = np.hypot(*(predicted[:, None] - drawn[None]).transpose(2, 0, 1)) <= reach
    deficiency = 0
    for size in range(1, len(predicted) + 1):
        for subset in combinations(range(len(predicted)), size):
            deficiency = max(deficiency, size - int(near[list(subset)].any(axis=0).sum()))
    return len(predicted) - deficiency


@pytest.mark.parametrize("seed", range(60))
def test_as_many_pixels_match_as_can(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, drawn = blank(6, 6), blank(6, 6)
    predicted.flat[rng.choice(36, 9, replace=False)] = True
    drawn.flat[rng.choice(36, 9, replace=False)] = True
    reach = float(rng.choice([1.0, 1.5, 2.0, 2.5]))
    matched_predicted, matched_drawn = match_counts(predicted, drawn, reach)
    expected = largest_matching(np.argwhere(predicted), np.argwhere(drawn), reach)
    assert matched_predicted.sum() == matched_drawn.sum() == expected
    assert not (matched_predicted & ~predicted).any()
    assert not (matched_drawn & ~drawn).any()
    # Those very pixels can be matched with one another.
    assert expected == largest_matching(
        np.argwhere(matched_predicted), np.argwhere(matched_drawn), reach
    )


# --- non-maximum suppression ------------------------------------------------------------------


def ridge(normal: float, size: int = 60) -> FloatArray:
    """A blurred straight line through the middle; ``normal`` is its normal's angle in degrees."""
    y, x = np.indices((size, size)) - (size - 1) / 2 + 0.2
    across = x * np.cos(np.radians(normal)) + y * np.sin(np.radians(normal))
    return np.asarray(np.exp(-(across**2) / 18))


@pytest.mark.parametrize("normal", [0, 20, 70, 90, 110, 160])
def test_nms_leaves_the_crest_of_a_blurred_ridge(normal: float) -> None:
    crest = nms(ridge(normal)) > 0.3
    inner = crest[8:-8, 8:-8]
    across = 1 if normal < 45 or normal > 135 else 0
    # A pixel or, where the crest passes between two, a pair in each line that crosses it.
    assert set(inner.sum(axis=across)) <= {1, 2}
    assert inner.sum() < 1.4 * inner.shape[0]
    assert ridge(normal)[crest].min() > 0.9


def test_nms_keeps_a_vertical_ridge_as_one_column_and_fades_at_the_border() -> None:
    soft = np.tile(np.exp(-((np.arange(41) - 20.0) ** 2) / 8), (30, 1))
    crest = nms(soft)
    assert list(np.flatnonzero(crest.max(axis=0) > 0.1)) == [20]
    strength = crest[15, 20]
    assert 0.85 < strength < 1
    np.testing.assert_allclose(crest[:6, 20] / strength, [0, 0.2, 0.4, 0.6, 0.8, 1], rtol=1e-5)


def test_nms_reads_bytes_as_shares_of_255() -> None:
    soft = np.round(ridge(30) * 255).astype(np.uint8)
    np.testing.assert_array_equal(nms(soft), nms(soft / 255.0))
    with pytest.raises(ValueError, match="int32"):
        nms(soft.astype(np.int32))


# --- counting ---------------------------------------------------------------------------------


def test_counts_by_threshold_and_annotator() -> None:
    # Two lines of 40 pixels, strong at column 10 and weak at column 30. One annotator drew both,
    # the other only the weak one.
    edge_map = column(10) * 0.8 + column(30) * 0.4
    drawings = [column(10) | column(30), column(31)]
    # One pixel of 40 x 40: a share of 1.5 / 56.6 of the diagonal allows the shift by one.
    got = evaluate_image(edge_map, drawings, thresholds=4, max_dist=1.5 / np.hypot(40, 40))
    assert list(threshold_levels(4)) == [0.2, 0.4, pytest.approx(0.6), 0.8]
    # The levels 0.2 and 0.4 see both lines, 0.6 and 0.8 the strong one.
    assert list(got.prediction) == [80, 80, 40, 40]
    assert list(got.matched_prediction) == [80, 80, 40, 40]
    assert list(got.truth) == [120] * 4
    assert list(got.matched_truth) == [120, 120, 40, 40]


def test_thick_predictions_are_thinned() -> None:
    edge_map = (column(19) | column(20) | column(21)) * 1.0
    got = evaluate_image(edge_map, [column(20)], thresholds=1)
    assert got.prediction[0] < 60
    assert got.matched_prediction[0] >= 36


def test_an_empty_map_counts_only_the_drawn() -> None:
    got = evaluate_image(np.zeros((40, 40)), [column(3), column(9)], thresholds=3)
    assert list(got.truth) == [80] * 3
    assert not got.matched_truth.any()
    assert not got.matched_prediction.any()
    assert not got.prediction.any()


# --- scores -----------------------------------------------------------------------------------


def test_scores_of_counts_worked_out_by_hand() -> None:
    # Together: recall 1, 0.5, 0.25 and precision 0.5, 1, 1 at the thresholds 1/4, 2/4, 3/4.
    first = counts([10, 10, 5], [10, 10, 10], [10, 10, 5], [10, 10, 5])
    second = counts([10, 0, 0], [10, 10, 10], [10, 0, 0], [30, 0, 0])
    scores = summarise([first, second])
    np.testing.assert_allclose(scores.recall, [1, 0.5, 0.25])
    np.testing.assert_allclose(scores.precision, [0.5, 1, 1])
    # Between the first two thresholds both are 0.75 half-way: the best F. The search has 100
    # points from threshold to threshold, so it comes within 1/198 of the middle.
    assert scores.ods == pytest.approx(0.75, abs=1e-4)
    assert scores.ods_threshold == pytest.approx(0.375, abs=0.25 / 198 + 1e-9)
    # The first picture is best at 1/4 (all right), the second too: 20 of 20 found, 20 of 40 right.
    assert scores.ois == pytest.approx(2 / 3)
    # Precision is 1 for recalls 0.25 .. 0.5 and falls to 0.5 at recall 1; below 0.25 it is not
    # reached. 26 points of 1, then 50 points from 0.99 down to 0.5.
    assert scores.ap == pytest.approx((26 + 50 * (0.99 + 0.5) / 2) / 100)
    assert scores.images == 2


def test_ois_lets_each_picture_choose() -> None:
    first = counts([10, 2], [10, 10], [10, 2], [10, 2])  # best at the low threshold
    second = counts([10, 10], [10, 10], [10, 10], [100, 10])  # best at the high one
    scores = summarise([first, second])
    assert scores.ois == pytest.approx(1.0)
    assert scores.ods < 0.9


def test_no_prediction_at_all_scores_zero() -> None:
    scores = summarise([counts([0, 0], [5, 5], [0, 0], [0, 0])])
    assert (scores.ods, scores.ois, scores.ap) == (0.0, 0.0, 0.0)


# --- folders ----------------------------------------------------------------------------------


def save_truth(path: Path, drawings: list[BoolArray]) -> None:
    """A file laid out as BSDS500's: a 1 x N cell of structs with the field Boundaries."""
    cell = np.empty((1, len(drawings)), dtype=object)
    for k, drawing in enumerate(drawings):
        cell[0, k] = {"Boundaries": drawing.astype(np.uint8)}
    scipy.io.savemat(path, {"groundTruth": cell})


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pictures, the maps blurred versions of the first annotator's drawing."""
    maps, truths = tmp_path / "maps", tmp_path / "truths"
    maps.mkdir()
    truths.mkdir()
    for name, at in (("a", 12), ("b", 20), ("c", 31)):
        save_truth(truths / f"{name}.mat", [column(at), column(at + 1)])
        soft = np.tile(np.exp(-((np.arange(40) - at) ** 2) / 8), (40, 1))
        Image.fromarray(np.round(255 * soft).astype(np.uint8)).save(maps / f"{name}.png")
    return maps, truths


def test_a_folder_scores_the_same_with_any_number_of_processes(
    folders: tuple[Path, Path],
) -> None:
    settings = {"thresholds": 9, "max_dist": 0.03, "progress": False}
    alone = evaluate_folder(*folders, workers=1, **settings)  # type: ignore[arg-type]
    shared = evaluate_folder(*folders, workers=2, **settings)  # type: ignore[arg-type]
    assert alone.images == shared.images == 3
    # Of 40 pixels the outermost fade below the lowest threshold; all else is found.
    assert alone.ods == pytest.approx(1.0, abs=0.03)
    assert (alone.ods, alone.ois, alone.ap) == (shared.ods, shared.ois, shared.ap)
    np.testing.assert_array_equal(alone.precision, shared.precision)


def test_limit_takes_the_first_pictures(folders: tuple[Path, Path]) -> None:
    (folders[0] / "c.png").unlink()
    scores = evaluate_folder(*folders, thresholds=2, limit=2, workers=1, progress=False)
    assert scores.images == 2


def test_a_missing_map_is_named(folders: tuple[Path, Path]) -> None:
    (folders[0] / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png: no such edge map \(1 of 3"):
        evaluate_folder(*folders, workers=1, progress=False)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_map_of_another_size_is_named(folders: tuple[Path, Path], workers: int) -> None:
    Image.fromarray(np.zeros((40, 32), dtype=np.uint8)).save(folders[0] / "b.png")
    with pytest.raises(DataError, match=r"b\.png: 32x40 pixels.*b\.mat have 40x40"):
        evaluate_folder(*folders, thresholds=2, workers=workers, progress=False)


def test_a_folder_without_drawings_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no drawings"):
        evaluate_folder(folders[0], tmp_path / "nowhere", progress=False)


@pytest.mark.parametrize("content", [b"", b"not a MATLAB file" * 20])
def test_a_broken_file_of_drawings_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mat: not a boundary file"):
        load_drawings(path)


def test_a_matlab_file_without_drawings_is_named(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"other": np.zeros(3)})
    with pytest.raises(DataError, match=r"a\.mat: not a boundary file"):
        load_drawings(tmp_path / "a.mat")


def test_people_agree_with_one_another_on_bsds500() -> None:
    truth_dir = Path(__file__).parents[2] / "shared/data/bsds500/groundTruth/test"
    if not truth_dir.is_dir():
        pytest.skip(f"BSDS500 is not at {truth_dir}")
    images = []
    for path in sorted(truth_dir.glob("*.mat"))[::100]:
        drawings = load_drawings(path)
        for k, drawing in enumerate(drawings):
            others = drawings[:k] + drawings[k + 1 :]
            images.append(evaluate_image(drawing.astype(np.float64), others, thresholds=1))
    # Published: about 0.80 over all pictures (Arbelaez et al. 2011).
    assert 0.7 < summarise(images).ods < 0.9
