"""The BSDS500 boundary benchmark: how well soft edge maps agree with people's drawings.

The protocol is that of Martin, Fowlkes and Malik (PAMI 2004) and Arbelaez et al. (PAMI 2011), with
the non-maximum suppression of Dollar and Zitnick (PAMI 2015) that is usual before scoring the
edge maps of networks. It reports the F-measure at the best threshold for the whole set (ODS), at
the best threshold of each picture (OIS), and the average precision (AP).

Matching. The toolbox of Martin et al. pairs predicted with drawn pixels by a cost-scaling
assignment (CSA): a pair costs its distance, an unmatched pixel 100 times the largest distance
allowed, so the number of pairs counts first and short pairs second. Here the number of pairs is
the maximum too, exactly, but short pairs are only preferred: nearest pairs are taken first, then a
maximum flow adds the pairs that are still possible. What is matched stays matched, and what
counts is which pixels are matched, not to which partner. The one figure that this can change is
the number of predictions that match any annotator. On gradient maps of three test photographs at
four thresholds each it came within 0.5 per cent of the optimal assignment's, either way; on Canny
edges a matching that ignores distance was off by up to 2.6 per cent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, map_coordinates
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_flow
from scipy.spatial import cKDTree
from skimage.morphology import thin
from tqdm import tqdm

from picsnet.errors import DataError
from picsnet.images import load_grey

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

THRESHOLDS = 99
"""Thresholds of the standard protocol: 0.01, 0.02 .. 0.99."""

MAX_DIST = 0.0075
"""Farthest that a matched pair may lie apart, as a share of the picture's diagonal."""

_thin: Callable[[BoolArray], BoolArray] = thin  # which scikit-image leaves untyped

_NMS_BORDER = 5  # pixels along the border whose estimates are damped
_NMS_MARGIN = 1.01  # a pixel survives when this times its value reaches its neighbours'
_THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class ImageCounts:
    """Pixels of one picture, by threshold (ascending): each array has the shape (thresholds,)."""

    matched_truth: IntArray  # drawn pixels that were found, summed over annotators
    truth: IntArray  # drawn pixels, summed over annotators
    matched_prediction: IntArray  # predicted pixels that match at least one annotator
    prediction: IntArray  # predicted pixels


@dataclass(frozen=True)
class BoundaryScores:
    """Scores of a set of pictures, all between 0 and 1."""

    ods: float  # F-measure at one threshold for all pictures
    ods_threshold: float
    ois: float  # F-measure when each picture has its own best threshold
    ap: float  # area under precision over recall
    images: int
    thresholds: FloatArray  # (thresholds,), ascending
    precision: FloatArray  # (thresholds,)
    recall: FloatArray  # (thresholds,)


def threshold_levels(count: int) -> FloatArray:
    """``count`` thresholds evenly between 0 and 1, without the ends: k / (count + 1)."""
    return np.arange(1, count + 1, dtype=np.float64) / (count + 1)


def nms(edge_map: NDArray[Any]) -> NDArray[np.float32]:
    """Non-maximum suppression: keep the crests of soft edges, at their strength, else 0.

    As ``edgesNms`` of Dollar and Zitnick's toolbox does with the settings usual for BSDS500: the
    map is smoothed by a triangle of radius 1; the direction across an edge comes from second
    derivatives of the map smoothed by a triangle of radius 4; a pixel is dropped when 1.01 times
    its value is below the value one pixel away on either side. Estimates within 5 pixels of the
    border fade to 0 at the border.

    Args:
        edge_map: (H, W), float in 0..1 or uint8 in 0..255.

    Returns:
        (H, W) in 0..1.

    Raises:
        ValueError: not a two-dimensional map of floats or uint8.
    """
    soft = _triangle(_as_unit_float(edge_map), 1)
    height, width = soft.shape
    if min(height, width) < 2:
        raise ValueError(f"an edge map needs at least 2 x 2 pixels, got {height} x {width}")
    d_y, d_x = np.gradient(_triangle(soft, 4))
    d_xx = np.gradient(d_x, axis=1)
    d_yy, d_xy = np.gradient(d_y)
    # The toolbox takes sign(0) = 0, which turns exactly horizontal lines by 90 degrees; real maps
    # have no exact zero there.
    with np.errstate(divide="ignore", invalid="ignore"):  # d_xx may be -1e-5 to the bit
        slope = d_yy * np.where(d_xy > 0, -1.0, 1.0) / (d_xx + 1e-5)
    angle = np.mod(np.arctan(slope), np.pi)
    rows, columns = np.indices(soft.shape, dtype=np.float64)
    step_y, step_x = np.sin(angle), np.cos(angle)
    keep = np.ones(soft.shape, dtype=np.bool_)
    for side in (-1, 1):
        beside = map_coordinates(
            soft, [rows + side * step_y, columns + side * step_x], order=1, mode="nearest"
        )
        keep &= soft * _NMS_MARGIN >= beside
    fade = _border_fade(height)[:, None] * _border_fade(width)[None, :]
    return np.where(keep, soft * fade, 0.0).astype(np.float32)


def match_counts(
    prediction: BoolArray, truth: BoolArray, max_distance: float
) -> tuple[BoolArray, BoolArray]:
    """Match predicted with drawn pixels one to one, as many as possible.

    Args:
        prediction: (H, W), predicted boundary pixels.
        truth: (H, W), one annotator's boundary pixels.
        max_distance: farthest that a pair may lie apart, in pixels, inclusive.

    Returns:
        The matched pixels of ``prediction`` and of ``truth``, (H, W) each, equal in number.

    Raises:
        ValueError: the two differ in size.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in size")
    matched = _match(_candidates(prediction, truth, max_distance), prediction)
    both = []
    for pixels in matched:
        mask = np.zeros(prediction.size, dtype=np.bool_)
        mask[pixels] = True
        both.append(mask.reshape(prediction.shape))
    return both[0], both[1]


def evaluate_image(
    edge_map: NDArray[Any],
    drawings: Sequence[BoolArray],
    *,
    thresholds: int = THRESHOLDS,
    max_dist: float = MAX_DIST,
) -> ImageCounts:
    """Count a picture's found and missed boundary pixels at every threshold.

    Args:
        edge_map: (H, W), float in 0..1 or uint8, with thin crests: apply ``nms`` to soft maps.
        drawings: boundary pixels of each annotator, (H, W) each.
        thresholds: how many levels; see ``threshold_levels``.
        max_dist: as a share of the picture's diagonal.

    Raises:
        ValueError: no drawing, or a drawing of another size than the map.
    """
    crests = _as_unit_float(edge_map)
    if not drawings:
        raise ValueError("an edge map is scored against at least one drawing, got none")
    if any(drawing.shape != crests.shape for drawing in drawings):
        raise ValueError(f"map {crests.shape} and drawing {drawings[0].shape} differ in size")
    levels = threshold_levels(thresholds)
    max_distance = max_dist * math.hypot(*crests.shape)
    # Every level's prediction is among the pixels of the lowest level: find near pairs once.
    widest = crests >= levels[0]
    candidates = [_candidates(widest, drawing, max_distance) for drawing in drawings]
    counts = np.zeros((3, thresholds), dtype=np.int64)
    previous = -1
    for k, level in enumerate(levels):
        above = crests >= level
        size = np.count_nonzero(above)
        if size == 0:
            break
        # The predictions are nested: as many pixels as before are the same pixels.
        counts[:, k] = counts[:, k - 1] if size == previous else _score(_thin(above), candidates)
        previous = size
    drawn = sum(int(np.count_nonzero(drawing)) for drawing in drawings)
    return ImageCounts(
        matched_truth=counts[0],
        truth=np.full(thresholds, drawn, dtype=np.int64),
        matched_prediction=counts[1],
        prediction=counts[2],
    )


def summarise(images: Sequence[ImageCounts]) -> BoundaryScores:
    """ODS, OIS and AP from the pictures' counts, as the toolbox's ``collect_eval_bdry`` does.

    ODS interpolates precision and recall between neighbouring thresholds. OIS adds up the counts
    of each picture at its own best threshold. AP integrates precision, interpolated over the
    recalls reached, over recall 0, 0.01 .. 1; recalls that no threshold reaches count as 0, and a
    curve of a single recall has AP 0.

    Raises:
        ValueError: no pictures.
    """
    if not images:
        raise ValueError("no counts to summarise")
    matched_truth = np.stack([c.matched_truth for c in images])
    truth = np.stack([c.truth for c in images])
    matched_prediction = np.stack([c.matched_prediction for c in images])
    prediction = np.stack([c.prediction for c in images])
    levels = threshold_levels(truth.shape[1])

    recall = _ratio(matched_truth.sum(axis=0), truth.sum(axis=0))
    precision = _ratio(matched_prediction.sum(axis=0), prediction.sum(axis=0))
    ods, ods_threshold = _best_on_curve(levels, precision, recall)

    f_by_image = _f_measure(_ratio(matched_prediction, prediction), _ratio(matched_truth, truth))
    best = np.arange(len(images)), np.argmax(f_by_image, axis=1)
    ois = _f_measure(
        _ratio(matched_prediction[best].sum(), prediction[best].sum()),
        _ratio(matched_truth[best].sum(), truth[best].sum()),
    )
    return BoundaryScores(
        ods=ods,
        ods_threshold=ods_threshold,
        ois=float(ois),
        ap=_average_precision(precision, recall),
        images=len(images),
        thresholds=levels,
        precision=precision,
        recall=recall,
    )


def evaluate_folder(
    maps_dir: Path,
    truth_dir: Path,
    *,
    thresholds: int = THRESHOLDS,
    max_dist: float = MAX_DIST,
    limit: int | None = None,
    workers: int = 2,
    progress: bool = True,
) -> BoundaryScores:
    """Score a folder of soft edge maps against BSDS500's drawings.

    Args:
        maps_dir: ``NAME.png`` for each ``NAME.mat``: 8-bit maps, 255 a sure edge, not thinned.
        truth_dir: ``groundTruth/SPLIT`` of BSDS500.
        thresholds: how many levels; 99 is standard.
        max_dist: as a share of each picture's diagonal; 0.0075 is standard.
        limit: only the first so many pictures by name.
        workers: processes; 1 stays in this one.
        progress: show a bar on stderr.

    Raises:
        DataError: no drawings in ``truth_dir``, a map is missing, a map's size is not its
            drawings', or a file of drawings is not BSDS500's.
        ImageError: a map cannot be read.
    """
    truths = list_truths(truth_dir)[:limit]
    maps = [maps_dir / f"{truth.stem}.png" for truth in truths]
    missing = [path for path in maps if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{missing[0]}: no such edge map ({len(missing)} of {len(maps)} are missing); "
            f"put a NAME.png for each NAME.mat of {truth_dir} in the folder"
        )
    task = partial(_evaluate_files, thresholds=thresholds, max_dist=max_dist)
    pairs = list(zip(maps, truths, strict=True))
    with tqdm(total=len(pairs), desc="scoring", unit="image", disable=not progress) as bar:
        if workers <= 1:
            counts = []
            for pair in pairs:
                counts.append(task(pair))
                bar.update()
            return summarise(counts)
        # Fresh processes: a fork would inherit the locks of torch's threads.
        with (
            _one_thread_each(),
            ProcessPoolExecutor(min(workers, len(pairs)), get_context("spawn")) as pool,
        ):
            futures = [pool.submit(task, pair) for pair in pairs]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return summarise([future.result() for future in futures])


def list_truths(truth_dir: Path) -> list[Path]:
    """The files of drawings in a folder, by name.

    Raises:
        DataError: there are none.
    """
    truths = sorted(truth_dir.glob("*.mat"))
    if not truths:
        raise DataError(
            f"{truth_dir}: no drawings (NAME.mat) in it; name a groundTruth/SPLIT folder of BSDS500"
        )
    return truths


def load_drawings(path: Path) -> list[BoolArray]:
    """Each annotator's boundary pixels, (H, W) each, from a ``.mat`` file of BSDS500.

    Raises:
        DataError: the file is not one of BSDS500's, or holds no drawing.
    """
    try:
        truth = scipy.io.loadmat(path)["groundTruth"]
        drawings = [truth[0, k]["Boundaries"][0, 0] > 0 for k in range(truth.shape[1])]
    except Exception as error:  # damaged files make SciPy's reader fail in many ways
        raise DataError(
            f"{path}: not a boundary file of BSDS500 ({error}); fetch the dataset again"
        ) from None
    if not drawings:
        raise DataError(f"{path}: holds no drawing; fetch the dataset again")
    return drawings


def _evaluate_files(pair: tuple[Path, Path], *, thresholds: int, max_dist: float) -> ImageCounts:
    map_path, truth_path = pair
    drawings = load_drawings(truth_path)
    edge_map = load_grey(map_path)
    for drawing in drawings:
        if drawing.shape != edge_map.shape:
            height, width = edge_map.shape
            raise DataError(
                f"{map_path}: {width}x{height} pixels, but the drawings of {truth_path.name} have "
                f"{drawing.shape[1]}x{drawing.shape[0]}; extract the map at the photograph's size"
            )
    return evaluate_image(nms(edge_map), drawings, thresholds=thresholds, max_dist=max_dist)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let processes started meanwhile use one thread each: the pictures are the parallel work."""
    before = {name: os.environ.get(name) for name in _THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(_THREAD_SETTINGS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _as_unit_float(edge_map: NDArray[Any]) -> FloatArray:
    if edge_map.ndim != 2:
        raise ValueError(f"an edge map has two dimensions, got the shape {edge_map.shape}")
    if edge_map.dtype == np.uint8:
        return edge_map / 255.0
    if np.issubdtype(edge_map.dtype, np.floating):
        return edge_map.astype(np.float64)
    raise ValueError(f"an edge map is of floats or uint8, got {edge_map.dtype}")


def _triangle(array: FloatArray, radius: int) -> FloatArray:
    """Smooth both axes by a triangle of unit sum, edges mirrored."""
    ramp = np.arange(1.0, radius + 2)
    kernel = np.concatenate([ramp, ramp[-2::-1]])
    kernel /= kernel.sum()
    for axis in (0, 1):
        array = convolve1d(array, kernel, axis=axis, mode="reflect")
    return array


def _border_fade(length: int) -> FloatArray:
    """Factors along one side: 0 at its ends, 1 from ``_NMS_BORDER`` pixels inwards."""
    border = min(_NMS_BORDER, length // 2)
    from_end = np.minimum(np.arange(length), np.arange(length)[::-1])
    return np.minimum(from_end / border, 1.0)


@dataclass(frozen=True)
class _Candidates:
    """Pairs of predicted and drawn pixels in reach of each other, the nearest pairs first."""

    predicted: IntArray  # (P,) indices into the flat map
    drawn: IntArray  # (D,) indices into the flat map
    pair_predicted: IntArray  # (pairs,) indices into ``predicted``
    pair_drawn: IntArray  # (pairs,) indices into ``drawn``


def _candidates(prediction: BoolArray, truth: BoolArray, max_distance: float) -> _Candidates:
    predicted, drawn = np.flatnonzero(prediction), np.flatnonzero(truth)
    if not len(predicted) or not len(drawn):
        none = np.zeros(0, dtype=np.int64)
        return _Candidates(predicted, drawn, none, none)
    pairs = cKDTree(np.argwhere(prediction)).sparse_distance_matrix(
        cKDTree(np.argwhere(truth)), max_distance, output_type="ndarray"
    )
    # On a grid many pairs are equally far. A fixed shuffle breaks ties: in raster order the
    # nearest-first choice would go along a line pair by pair, one round each.
    shuffle = np.random.default_rng(0).permutation(len(pairs))
    order = shuffle[np.argsort(pairs["v"][shuffle], kind="stable")]
    return _Candidates(
        predicted,
        drawn,
        pairs["i"][order].astype(np.int64),
        pairs["j"][order].astype(np.int64),
    )


def _match(candidates: _Candidates, prediction: BoolArray) -> tuple[IntArray, IntArray]:
    """Matched pixels of a prediction and of the drawing, as indices into the flat map.

    ``prediction`` must lie within the one that the candidates were found for.
    """
    predicted, drawn = candidates.predicted, candidates.drawn
    present = prediction.ravel()[predicted][candidates.pair_predicted]
    i, j = candidates.pair_predicted[present], candidates.pair_drawn[present]
    partner = _match_nearest(i, j, len(predicted), len(drawn))
    matched = np.zeros(len(drawn), dtype=np.bool_)
    matched[partner[partner >= 0]] = True
    more_predicted, more_drawn = _match_more(i, j, partner, matched)
    return (
        predicted[np.concatenate([np.flatnonzero(partner >= 0), more_predicted])],
        drawn[np.concatenate([np.flatnonzero(matched), more_drawn])],
    )


def _match_nearest(i: IntArray, j: IntArray, predicted: int, drawn: int) -> IntArray:
    """Take the nearest pair whose pixels are both free, again and again.

    Returns:
        (predicted,) the index of each one's drawn partner, or -1.
    """
    partner = np.full(predicted, -1, dtype=np.int64)
    taken = np.zeros(drawn, dtype=np.bool_)
    first_i, first_j = np.zeros(predicted, dtype=np.int64), np.zeros(drawn, dtype=np.int64)
    while len(i):
        # A pair that is the nearest of both its pixels is taken in any order: all at once.
        rank = np.arange(len(i))
        first_i[i[::-1]] = rank[::-1]  # the last one written stays
        first_j[j[::-1]] = rank[::-1]
        mutual = (first_i[i] == rank) & (first_j[j] == rank)
        partner[i[mutual]] = j[mutual]
        taken[j[mutual]] = True
        free = (partner[i] < 0) & ~taken[j]
        i, j = i[free], j[free]
    return partner


def _match_more(
    i: IntArray, j: IntArray, partner: IntArray, matched: BoolArray
) -> tuple[IntArray, IntArray]:
    """Free pixels that can be matched too when others change partners, as many as possible.

    Returns:
        Indices of predicted and of drawn pixels, equal in number.
    """
    reachable = np.zeros(len(partner), dtype=np.bool_)
    reachable[i] = True
    free_predicted = np.flatnonzero(reachable & (partner < 0))
    free_drawn = np.flatnonzero(~matched)
    if not len(free_predicted) or not len(free_drawn):
        return free_predicted[:0], free_drawn[:0]
    # An alternating path goes to a drawn pixel by a pair not used and back by a used one. As each
    # pixel has one used pair at most, unit capacities keep the paths apart.
    used = partner[i] == j
    first_drawn = len(partner)
    source = first_drawn + len(matched)
    sink = source + 1
    tails = [i[~used], first_drawn + j[used], np.full(len(free_predicted), source)]
    heads = [first_drawn + j[~used], i[used], free_predicted]
    tails.append(first_drawn + free_drawn)
    heads.append(np.full(len(free_drawn), sink))
    tail, head = np.concatenate(tails), np.concatenate(heads)
    capacity = csr_matrix(
        (np.ones(len(tail), dtype=np.int32), (tail, head)), shape=(sink + 1, sink + 1)
    )
    flow = maximum_flow(capacity, source, sink, method="dinic").flow
    out_of_source, into_sink = flow[source], flow[sink]
    return (
        out_of_source.indices[out_of_source.data > 0].astype(np.int64),
        into_sink.indices[into_sink.data < 0].astype(np.int64) - first_drawn,
    )


def _score(prediction: BoolArray, candidates: Sequence[_Candidates]) -> tuple[int, int, int]:
    """(drawn pixels found by annotator and summed, predictions that match any, predictions)."""
    correct = np.zeros(prediction.size, dtype=np.bool_)
    found = 0
    for drawing in candidates:
        predicted, drawn = _match(drawing, prediction)
        correct[predicted] = True
        found += len(drawn)
    return found, int(np.count_nonzero(correct)), int(np.count_nonzero(prediction))


def _ratio(part: NDArray[Any], whole: NDArray[Any]) -> FloatArray:
    """part / whole; 0 where the whole is 0."""
    return np.asarray(part / np.maximum(whole, 1), dtype=np.float64)


def _f_measure(precision: FloatArray, recall: FloatArray) -> FloatArray:
    """Harmonic mean; 0 where both are 0."""
    both = precision + recall
    return np.asarray(2 * precision * recall / np.where(both > 0, both, 1.0))


def _best_on_curve(
    levels: FloatArray, precision: FloatArray, recall: FloatArray
) -> tuple[float, float]:
    """(F-measure, threshold) at the best point of the curve, linear between thresholds."""
    at = np.arange(len(levels))
    # 100 points from each threshold to the next, both included, as the toolbox takes them.
    fine = np.unique(np.concatenate([at[k] + np.linspace(0, 1, 100) for k in at[:-1]] or [at]))
    f = _f_measure(np.interp(fine, at, precision), np.interp(fine, at, recall))
    best = int(np.argmax(f))
    return float(f[best]), float(np.interp(fine[best], at, levels))


def _average_precision(precision: FloatArray, recall: FloatArray) -> float:
    reached, first = np.unique(recall, return_index=True)
    if len(reached) < 2:
        return 0.0
    steps = np.linspace(0, 1, 101)
    return float(np.interp(steps, reached, precision[first], left=0.0, right=0.0).sum() / 100)
