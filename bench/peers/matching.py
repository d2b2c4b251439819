"""Recall, and the smallest setting that reaches a wanted one."""

from collections.abc import Callable

import numpy as np

#: How near the smallest setting is found: within this share of it, and at least 1.
RESOLUTION = 0.02
#: Recall that has risen by less than this while the setting doubled will not rise any more.
STALLED = 0.001


def recall(found: np.ndarray, truth: np.ndarray, k: int) -> float:
    """The share of the true k nearest among the k found, over all queries.

    `found` and `truth` have a row for each query; rows of `found` may be short of k valid ids.
    """
    if len(found) != len(truth) or truth.shape[1] < k:
        raise ValueError(
            f"answers to {len(found)} queries cannot be held against {truth.shape[1]} true "
            f"neighbours of {len(truth)}"
        )
    hits = sum(
        len(set(row[:k].tolist()) & set(true[:k].tolist()))
        for row, true in zip(found, truth, strict=True)
    )
    return hits / (len(truth) * k)


def smallest(
    reached: Callable[[int], float], low: int, high: int, target: float
) -> tuple[int, float] | None:
    """The smallest setting in `low..=high` whose recall is at least the target, and that recall.

    None where the target is out of reach. `reached` must not fall as the setting grows; it is
    asked once for each setting.
    """
    known: dict[int, float] = {}

    def at(setting: int) -> float:
        if setting not in known:
            known[setting] = reached(setting)
        return known[setting]

    below, above = low - 1, low
    while at(above) < target:
        if above >= high:
            return None
        if above > 16 * low and at(above) - known.get(below, 0.0) < STALLED:
            return None
        below, above = above, min(2 * above, high)
    while above - below > max(1, int(below * RESOLUTION)):
        middle = (below + above) // 2
        if at(middle) < target:
            below = middle
        else:
            above = middle
    return above, at(above)
