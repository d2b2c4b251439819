import unittest

import numpy as np

from peers import matching


class RecallTest(unittest.TestCase):
    def test_is_the_share_of_the_true_k(self) -> None:
        truth = np.array([[1, 2, 3], [4, 5, 6]])
        self.assertEqual(matching.recall(np.array([[2, 1, 9], [4, 5, 6]]), truth, 2), 1.0)
        self.assertEqual(matching.recall(np.array([[2, 9, 1], [7, 8, 9]]), truth, 2), 0.25)

    def test_ids_that_are_missing_or_repeated_do_not_count(self) -> None:
        truth = np.array([[1, 2]])
        self.assertEqual(matching.recall(np.array([[1, -1]]), truth, 2), 0.5)
        self.assertEqual(matching.recall(np.array([[1, 1]]), truth, 2), 0.5)

    def test_refuses_answers_to_other_questions(self) -> None:
        truth = np.array([[1, 2]])
        with self.assertRaises(ValueError):
            matching.recall(np.array([[1, 2], [1, 2]]), truth, 2)
        with self.assertRaises(ValueError):
            matching.recall(np.array([[1, 2, 3]]), truth, 3)


class SmallestTest(unittest.TestCase):
    def test_finds_the_smallest_that_reaches_the_target(self) -> None:
        for needed in range(10, 90):
            found = matching.smallest(lambda value, n=needed: float(value >= n), 10, 90, 0.9)
            self.assertIsNotNone(found)
            # Within two hundredths, and never below.
            self.assertTrue(needed <= found[0] <= max(needed + 1, needed * 1.03), (needed, found))
            self.assertEqual(found[1], 1.0)

    def test_the_lowest_value_is_enough_where_it_reaches_the_target(self) -> None:
        self.assertEqual(matching.smallest(lambda _: 0.95, 10, 4000, 0.9), (10, 0.95))

    def test_the_highest_value_is_tried(self) -> None:
        self.assertEqual(matching.smallest(lambda n: n / 100, 1, 100, 1.0), (100, 1.0))

    def test_gives_up_where_the_target_is_out_of_reach(self) -> None:
        asked: list[int] = []

        def reached(value: int) -> float:
            asked.append(value)
            return min(value / 100, 0.8)

        self.assertIsNone(matching.smallest(reached, 10, 100_000, 0.9))
        self.assertLess(max(asked), 1000, "recall that has stopped rising is not pursued")

    def test_asks_once_for_each_value(self) -> None:
        asked: list[int] = []

        def reached(value: int) -> float:
            asked.append(value)
            return value / 1000

        matching.smallest(reached, 1, 4000, 0.77)
        self.assertEqual(len(asked), len(set(asked)))


if __name__ == "__main__":
    unittest.main()
