"""Fusions of two scored lists into one, to know what can be expected of hybrid search.

Every function takes the results of one query, best first, of two ways of searching, and returns
the fused scores.
"""

from collections.abc import Callable, Mapping

from .offline import DEPTH, Rankings, Scored

Results = list[tuple[str, float]]
Fusion = Callable[[Results, Results], Mapping[str, float]]


def reciprocal(constant: float, first_weight: float = 0.5) -> Fusion:
    """The sum of 1 / (constant + place)."""

    def fuse(first: Results, second: Results) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for weight, results in ((first_weight, first), (1 - first_weight, second)):
            for place, (id, _) in enumerate(results, 1):
                found[id] = found.get(id, 0.0) + weight / (constant + place)
        return found

    return fuse


def min_max(first_weight: float = 0.5) -> Fusion:
    """Scores of each list stretched to 0..1, added; what a list lacks has 0 there."""
    return weighted(
        lambda results: stretched(results, min(score for _, score in results)), first_weight
    )


def from_zero(first_weight: float = 0.5) -> Fusion:
    """Scores of each list divided by its best."""
    return weighted(lambda results: stretched(results, 0.0), first_weight)


def deviations(first_weight: float = 0.5) -> Fusion:
    """Scores of each list as 0.5 at the mean and 0 and 1 at three standard deviations from it."""

    def scale(results: Results) -> dict[str, float]:
        scores = [score for _, score in results]
        mean = sum(scores) / len(scores)
        spread = 6 * (sum((score - mean) ** 2 for score in scores) / len(scores)) ** 0.5
        return {id: (score - mean) / spread + 0.5 if spread else 0.5 for id, score in results}

    return weighted(scale, first_weight)


def weighted(scale: Callable[[Results], dict[str, float]], first_weight: float) -> Fusion:
    """Scores of each list on one scale, added with weights."""

    def fuse(first: Results, second: Results) -> Mapping[str, float]:
        found: dict[str, float] = {}
        for weight, results in ((first_weight, first), (1 - first_weight, second)):
            for id, score in scale(results).items() if results else ():
                found[id] = found.get(id, 0.0) + weight * score
        return found

    return fuse


def stretched(results: Results, low: float) -> dict[str, float]:
    """Scores from `low` to the best as 0 to 1."""
    high = results[0][1]
    return {id: (score - low) / (high - low) if high > low else 1.0 for id, score in results}


def fuse(first: Scored, second: Scored, fusion: Fusion, depth: int = DEPTH) -> Rankings:
    """The rankings of the fused scores; among equals what comes first in the first list."""
    found: Rankings = {}
    for query in first.keys() | second.keys():
        scores = fusion(first.get(query, [])[:depth], second.get(query, [])[:depth])
        found[query] = sorted(scores, key=lambda id: -scores[id])[:DEPTH]
    return found
