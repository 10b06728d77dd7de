"""Score cell tracks by the standard metrics of multiple object tracking, as motmetrics computes them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cytovox.errors import InputError
from cytovox.metrics.matching import overlaps

#: A found cell matches a true one if their IoU is at least this.
SAME_IOU = 0.5


@dataclass(frozen=True)
class TrackScores:
    """Scores of a time-lapse."""

    idf1: float
    """Share of all detections with the right identity, over the best assignment of tracks (Ristani et al. 2016)."""
    mota: float
    """1 - (misses + false positives + switches) / true detections (Bernardin and Stiefelhagen 2008)."""
    switches: int
    """Times that a true cell changed its track."""
    fragmentations: int
    """Times that a true cell was lost and found again."""
    misses: int
    """True detections that were not found."""
    false_positives: int
    """Detections that match no true cell."""


def score_tracks(truth_TZYX: Sequence[np.ndarray], found_TZYX: Sequence[np.ndarray]) -> TrackScores:
    """Return the scores of tracks against true tracks.

    Parameters
    ----------
    truth_TZYX, found_TZYX : sequences of integer arrays, (Z, Y, X)
        One array per frame. A label is a track: a cell has the same label in every frame.

    Raises
    ------
    ValueError
        Time-lapses of different length, or frames of different shape.
    InputError
        motmetrics is not installed; it comes with the extra `tracking`.

    References
    ----------
    Bernardin and Stiefelhagen 2008, EURASIP J. Image Video Process.; Ristani et al. 2016, ECCV workshops.
    """
    if len(truth_TZYX) != len(found_TZYX):
        raise ValueError(f"expected time-lapses of one length, got {len(truth_TZYX)} and {len(found_TZYX)} frames")
    try:
        import motmetrics
    except ImportError as error:
        raise InputError(
            f"tracking scores: motmetrics cannot be imported ({error}): run pip install 'cytovox[tracking]'"
        ) from error
    events = motmetrics.MOTAccumulator()
    for frame, (truth, found) in enumerate(zip(truth_TZYX, found_TZYX, strict=True)):
        pairs = overlaps(truth, found)
        distance = 1 - pairs.iou_TP
        distance[distance > 1 - SAME_IOU] = np.nan
        events.update(pairs.truth_T.tolist(), pairs.predicted_P.tolist(), distance, frameid=frame)
    names = ["idf1", "mota", "num_switches", "num_fragmentations", "num_misses", "num_false_positives"]
    row = motmetrics.metrics.create().compute(events, metrics=names, name="scores").loc["scores"]
    return TrackScores(float(row["idf1"]), float(row["mota"]), *(int(row[name]) for name in names[2:]))
