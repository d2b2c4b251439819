"""Figures of one ranking against the judgements, as trec_eval defines them.

A ranking is the ids of documents, best first, each once. What is not judged is not relevant.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

Grades = Mapping[str, int]
Ranking = Sequence[str]


def ndcg(ranking: Ranking, grades: Grades, depth: int = 10) -> float:
    """Grades, divided by the logarithm of their places, to what they could be at best."""
    found = discounted(grades.get(id, 0) for id in ranking[:depth])
    ideal = discounted(sorted(grades.values(), reverse=True)[:depth])
    return found / ideal if ideal > 0 else 0.0


def discounted(gains: Iterable[int]) -> float:
    """The sum of grades, each divided by the logarithm of its place."""
    return sum(max(gain, 0) / math.log2(place + 2) for place, gain in enumerate(gains))


def recall(ranking: Ranking, grades: Grades, depth: int = 100) -> float:
    """The share of what is relevant that is among the first."""
    wanted = relevant(grades)
    return len(wanted.intersection(ranking[:depth])) / len(wanted) if wanted else 0.0


def reciprocal_rank(ranking: Ranking, grades: Grades, depth: int = 10) -> float:
    """One divided by the place of the first that is relevant."""
    wanted = relevant(grades)
    places = (place for place, id in enumerate(ranking[:depth], 1) if id in wanted)
    return 1.0 / next(places, math.inf)


def average_precision(ranking: Ranking, grades: Grades) -> float:
    """Precision at the place of everything relevant; what is not found counts as 0."""
    wanted = relevant(grades)
    hits, total = 0, 0.0
    for place, id in enumerate(ranking, 1):
        if id in wanted:
            hits += 1
            total += hits / place
    return total / len(wanted) if wanted else 0.0


def relevant(grades: Grades) -> set[str]:
    """The documents that are relevant at all."""
    return {id for id, grade in grades.items() if grade > 0}


METRICS: dict[str, Callable[[Ranking, Grades], float]] = {
    "nDCG@10": ndcg,
    "recall@100": recall,
    "MRR@10": reciprocal_rank,
    "MAP": average_precision,
}


def evaluate(rankings: Mapping[str, Ranking], judgements: Mapping[str, Grades]) -> dict[str, float]:
    """Means over all judged queries; one that was not answered counts as 0."""
    return {
        name: statistics.fmean(
            metric(rankings.get(query, ()), grades) for query, grades in judgements.items()
        )
        for name, metric in METRICS.items()
    }
