import unittest

from relevance import fusion

FIRST = [("a", 0.9), ("b", 0.8), ("c", 0.5)]
SECOND = [("b", 12.0), ("d", 6.0)]


class FusionTest(unittest.TestCase):
    def check(self, found: dict[str, float], wanted: dict[str, float]) -> None:
        self.assertEqual(found.keys(), wanted.keys())
        for id, score in wanted.items():
            self.assertAlmostEqual(found[id], score, msg=id)

    def test_reciprocal_ranks_are_added(self) -> None:
        found = dict(fusion.reciprocal(60)(FIRST, SECOND))
        wanted = {"a": 1 / 61, "b": 1 / 62 + 1 / 61, "c": 1 / 63, "d": 1 / 62}
        self.check(found, {id: score / 2 for id, score in wanted.items()})

    def test_scores_are_stretched(self) -> None:
        found = dict(fusion.min_max(0.25)(FIRST, SECOND))
        self.check(found, {"a": 0.25, "b": 0.25 * 0.75 + 0.75, "c": 0, "d": 0})
        found = dict(fusion.from_zero(0.25)(FIRST, SECOND))
        self.check(found, {"a": 0.25, "b": 0.25 * 8 / 9 + 0.75, "c": 0.25 * 5 / 9, "d": 0.375})

    def test_deviations_have_the_mean_in_the_middle(self) -> None:
        found = dict(fusion.deviations()([("a", 3.0), ("b", 1.0)], [("c", 5.0)]))
        self.check(found, {"a": 0.5 * (0.5 + 1 / 6), "b": 0.5 * (0.5 - 1 / 6), "c": 0.25})

    def test_rankings_keep_the_best_and_the_order_of_equals(self) -> None:
        found = fusion.fuse(
            {"1": FIRST, "2": []}, {"1": SECOND, "3": SECOND}, fusion.reciprocal(60)
        )
        self.assertEqual(found, {"1": ["b", "a", "d", "c"], "2": [], "3": ["b", "d"]})
        found = fusion.fuse({"1": FIRST}, {"1": SECOND}, fusion.reciprocal(60), depth=1)
        self.assertEqual(found, {"1": ["a", "b"]})


if __name__ == "__main__":
    unittest.main()
