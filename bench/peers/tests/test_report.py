import unittest
from typing import Any

from peers import report


def turn(rate: float) -> dict[str, Any]:
    return {"0.9": {"qps": {"1": rate}, "p50_ms": 1.0, "p99_ms": 2.0, "foreign": {"1": 0.25}}}


def result(*rates: float | None) -> dict[str, Any]:
    return {
        "build": {"seconds": 3.0, "cpu_seconds": None, "foreign": 0.5, "version": "x 1"},
        "bytes": {"resident": 7_000_000, "mapped": 9_000_000, "file": 4_000_000},
        "settings": {"0.9": {"parameters": {"ef": 20}, "recall": 0.91}},
        "rounds": [None if rate is None else turn(rate) for rate in rates],
    }


class ReportTest(unittest.TestCase):
    def summarised(self, **results: dict[str, Any]) -> dict[str, Any]:
        named = {name.replace("_", "-"): value for name, value in results.items()}
        report.summarise(named, ["0.9", "exact"])
        return named

    def test_ratios_are_of_the_same_round(self) -> None:
        # The machine halves its speed in the second round, and the first turn of one failed.
        results = self.summarised(hnswlib=result(100, 50, 100), ours=result(None, 100, 200))
        self.assertEqual(results["ours"]["summary"]["0.9"]["qps"]["1"], 150)
        text = report.table(results, ["0.9", "exact"], ["1"])
        line = next(line for line in text.splitlines() if line.startswith("| ours |"))
        self.assertEqual(
            line,
            "| ours | 3.0 (?; 0.50) | 7 (+ 9) | 4 | 0.9100 | ef=20 | 150 | 2.00 |  "
            "| 1.000 / 2.000 | 0.25 |",
        )

    def test_faiss_is_the_quickest_of_its_kinds(self) -> None:
        results = self.summarised(
            faiss_hnsw=result(10, 10), faiss_ivf=result(40, 40), ours=result(20, 20)
        )
        self.assertEqual(report.quickest(results, "0.9", "1"), "faiss-ivf")
        self.assertEqual(report.against(results, "ours", "faiss-ivf", "0.9", "1"), "0.50")

    def test_failed_and_not_reached_are_told_apart(self) -> None:
        out_of_reach = {**result(1), "settings": {}, "rounds": [None]}
        results = self.summarised(failing=result(None, None), short=out_of_reach)
        text = report.table(results, ["0.9", "exact"], ["1"])
        self.assertRegex(text, r"\| failing \|.*\| 0.9 \| failed \|")
        self.assertRegex(text, r"\| short \|.*\| 0.9 \| not reached \|")
        self.assertEqual(len(text.splitlines()), 4)


if __name__ == "__main__":
    unittest.main()
