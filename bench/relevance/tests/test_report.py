import unittest
from typing import Any

from relevance import report


def result(vector: float, keyword: float | None, hybrid: float | None) -> dict[str, Any]:
    figures = {
        report.SERVER["vector"]: vector,
        report.SERVER["keyword"]: keyword,
        report.SERVER["hybrid"]: hybrid,
        report.EXACT: 0.5,
        report.BM25: 0.4,
        report.BM25_TUNED: 0.42,
    }
    metrics = dict.fromkeys(report.METRICS, 0.1)
    return {
        "documents": 1000,
        "queries": 10,
        "left_out": 0,
        "cut": 2,
        "told": [],
        "bm25": {report.BM25_TUNED: (0.9, 0.4)},
        "systems": {
            name: metrics | {report.FIGURE: figure}
            for name, figure in figures.items()
            if figure is not None
        },
    }


def met(one: dict[str, Any]) -> list[bool | None]:
    return [goal.met for goal in report.goals(one)]


class ReportTest(unittest.TestCase):
    def test_goals_are_met_at_their_bounds_and_missed_beyond(self) -> None:
        self.assertEqual(met(result(0.4981, 0.42, 0.4932)), [True, True, True, True])
        self.assertEqual(met(result(0.4979, 0.4199, 0.4928)), [False, True, False, False])
        self.assertEqual(met(result(0.5021, 0.3998, 0.6)), [False, False, False, True])

    def test_hybrid_is_held_against_the_better_part(self) -> None:
        self.assertEqual(met(result(0.5, 0.6, 0.594))[3], False)
        self.assertEqual(met(result(0.5, 0.6, 0.596))[3], True)

    def test_what_was_not_measured_is_neither_met_nor_missed(self) -> None:
        one = result(0.5, None, None)
        self.assertEqual(met(one), [True, None, None, None])
        self.assertEqual([goal.met for goal in report.over_all([one])], [None, None])
        self.assertFalse(report.all_met({"collections": {"x": one}}))

    def test_hybrid_has_to_win_on_average(self) -> None:
        lost, won = result(0.5, 0.44, 0.497), result(0.5, 0.42, 0.504)
        self.assertEqual([goal.met for goal in report.over_all([lost, won])], [True, True])
        self.assertTrue(report.all_met({"collections": {"x": lost, "y": won}}))
        self.assertEqual([goal.met for goal in report.over_all([lost, lost])], [False, True])

    def test_document_has_a_line_for_each_system(self) -> None:
        text = report.document({"collections": {"x": result(0.5, 0.42, None)}})
        self.assertIn("### x\n\n1,000 documents, 10 queries, 2 cut to what the server takes.", text)
        self.assertIn("| bm25s, tuned (k1 0.9, b 0.4) | 0.4200 | 0.1000 |", text)
        self.assertNotIn("server, hybrid", text)
        self.assertIn("- not measured: hybrid search is at most 0.005 below", text)
        self.assertIn("- met: vector search", text)

    def test_latency_is_median_and_99th_percentile(self) -> None:
        seconds = [number / 1000 for number in range(1, 101)]
        self.assertEqual(report.latency(seconds), {"p50_ms": 50.5, "p99_ms": 100.0})
        self.assertEqual(report.latency([0.002]), {"p50_ms": 2.0, "p99_ms": 2.0})


if __name__ == "__main__":
    unittest.main()
