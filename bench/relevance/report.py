"""Goals, tables."""

import statistics
from dataclasses import dataclass
from typing import Any

from .metrics import METRICS

#: The figure that the goals are of.
FIGURE = "nDCG@10"
#: How far the server's vectors may be from the same model computed elsewhere.
VECTOR_SLACK = 0.002
#: How far hybrid search may be below the better of its two parts.
HYBRID_SLACK = 0.005

#: Rows of a table, in order; a collection has those that could be measured.
SERVER = {mode: f"server, {mode}" for mode in ("vector", "keyword", "hybrid")}
EXACT = "model, exact"
BM25 = "bm25s"
BM25_TUNED = "bm25s, tuned"
FUSED = "RRF 60 of model and bm25s"
FUSED_SCORES = "scores to the best, 0.6 and 0.4, of model and bm25s"


@dataclass(frozen=True)
class Goal:
    """What is wanted, what was seen, and whether that is it; None where it was not measured."""

    text: str
    seen: str
    met: bool | None

    def line(self) -> str:
        word = {True: "met", False: "NOT MET", None: "not measured"}[self.met]
        return f"- {word}: {self.text}{f' ({self.seen})' if self.seen else ''}"


def goals(result: dict[str, Any]) -> list[Goal]:
    """The goals of one collection."""
    figures = {name: system[FIGURE] for name, system in result["systems"].items()}
    vector, keyword, hybrid = (figures.get(SERVER[mode]) for mode in SERVER)
    parts = None if vector is None or keyword is None else max(vector, keyword)
    return [
        goal(
            f"vector search is within {VECTOR_SLACK} of the same model compared exactly",
            vector,
            figures.get(EXACT),
            lambda mine, other: abs(mine - other) <= VECTOR_SLACK,
        ),
        goal("keyword search is at least BM25 as it comes", keyword, figures.get(BM25), at_least),
        goal(
            "keyword search is at least BM25 tuned on these very judgements",
            keyword,
            figures.get(BM25_TUNED),
            at_least,
        ),
        goal(
            f"hybrid search is at most {HYBRID_SLACK} below the better of the two",
            hybrid,
            parts,
            lambda mine, other: mine >= other - HYBRID_SLACK,
        ),
    ]


def over_all(results: list[dict[str, Any]]) -> list[Goal]:
    """The goals of all collections together."""
    found = []
    for part in ("vector", "keyword"):
        means = [
            None if None in values else statistics.fmean(values)
            for values in (
                [one["systems"].get(SERVER[mode], {}).get(FIGURE) for one in results]
                for mode in ("hybrid", part)
            )
        ]
        text = f"hybrid search is above {part} search on average"
        found.append(goal(text, *means, lambda mine, other: mine > other))
    return found


def goal(text: str, mine: float | None, other: float | None, met: Any) -> Goal:
    """A goal of two figures, told with their difference."""
    if mine is None or other is None:
        return Goal(text, "", None)
    return Goal(text, f"{mine:.4f}, {other:.4f}: {mine - other:+.4f}", met(mine, other))


def at_least(mine: float, other: float) -> bool:
    """Not less, as far as it is told."""
    # The fourth decimal is what is told; less than that is no difference.
    return round(mine, 4) >= round(other, 4)


def table(result: dict[str, Any]) -> str:
    """One collection as Markdown: a line for each system."""
    header = ["system", *METRICS, "p50 ms", "p99 ms"]
    lines = [header, ["---"] * len(header)]
    for name, system in result["systems"].items():
        cells = [f"{system[metric]:.4f}" for metric in METRICS]
        times = [f"{system[key]:.2f}" if key in system else "" for key in ("p50_ms", "p99_ms")]
        lines.append([name + note(result, name), *cells, *times])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def note(result: dict[str, Any], name: str) -> str:
    """The parameters of a BM25."""
    k1, b = result["bm25"].get(name, (None, None))
    return "" if k1 is None else f" (k1 {k1}, b {b})"


def latency(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile, in ms: the time that 99 of 100 requests stayed below."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"p50_ms": statistics.median(ordered) * 1e3, "p99_ms": p99 * 1e3}


def document(run: dict[str, Any]) -> str:
    """All collections, with what has to be known to read the figures."""
    parts = [
        "Model and BM25 were computed apart from the server, on the same texts. The tuned BM25 is "
        "the best of a grid on the very queries that it is judged by: as strong as BM25 can be "
        "made here, stronger than anybody can know beforehand. Times are of one request at a time."
    ]
    for name, result in run["collections"].items():
        left_out, cut = result["left_out"], result["cut"]
        told = f"{result['documents']:,} documents, {result['queries']} queries"
        told += f", {left_out} without anything relevant left out" if left_out else ""
        told += f", {cut} cut to what the server takes" if cut else ""
        parts += [f"### {name}", told + ".", table(result)]
        parts += [*result["told"], "\n".join(one.line() for one in goals(result))]
    parts += [
        "### All",
        "\n".join(one.line() for one in over_all(list(run["collections"].values()))),
    ]
    return "\n\n".join(parts) + "\n"


def all_met(run: dict[str, Any]) -> bool:
    """Whether every goal was measured and met."""
    results = list(run["collections"].values())
    found = [one for result in results for one in goals(result)] + over_all(results)
    return all(one.met for one in found)
