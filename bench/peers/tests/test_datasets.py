import tempfile
import unittest
from pathlib import Path

import numpy as np

from peers import datasets


class DatasetsTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def put(self, base: np.ndarray, queries: np.ndarray) -> None:
        np.save(self.folder / "x_base.npy", base)
        np.save(self.folder / "x_query.npy", queries)

    def random(self, *shape: int) -> np.ndarray:
        return np.random.default_rng(7).standard_normal(shape, dtype=np.float32)

    def test_truth_is_that_of_a_plain_search_also_across_blocks(self) -> None:
        base, queries = self.random(1000, 6), self.random(20, 6) * 2
        # Equal rows: the lower one is first.
        base[500] = base[3]
        block, datasets.BLOCK = datasets.BLOCK, 170
        self.addCleanup(setattr, datasets, "BLOCK", block)
        for metric in ("l2", "dot", "cosine"):
            found = datasets.exact(base, queries, metric, 50)
            for query, row in zip(queries, found, strict=True):
                wide = base.astype(np.float64)
                if metric == "l2":
                    away = np.linalg.norm(wide - query, axis=1)
                else:
                    away = -(wide @ query.astype(np.float64))
                np.testing.assert_array_equal(row, np.argsort(away, kind="stable")[:50])

    def test_unit_vectors_are_compared_by_cosine_and_others_by_l2(self) -> None:
        base, queries = self.random(300, 8), self.random(5, 8)
        self.put(base, queries)
        self.assertEqual(datasets.prepare("x", self.folder, None).metric, "l2")
        self.put(
            base / np.linalg.norm(base, axis=1, keepdims=True),
            queries / np.linalg.norm(queries, axis=1, keepdims=True),
        )
        self.assertEqual(datasets.prepare("x", self.folder, None).metric, "cosine")

    def test_what_cannot_be_used_is_refused_with_advice(self) -> None:
        with self.assertRaisesRegex(datasets.DatasetError, "put its rows into"):
            datasets.prepare("x", self.folder, None)
        self.put(self.random(300, 8), self.random(5, 7))
        with self.assertRaisesRegex(datasets.DatasetError, "do not go together"):
            datasets.prepare("x", self.folder, None)
        self.put(self.random(300, 8).astype(np.float64), self.random(5, 8))
        with self.assertRaisesRegex(datasets.DatasetError, "float32"):
            datasets.prepare("x", self.folder, None)
        self.put(self.random(300, 8), self.random(5, 8))
        with self.assertRaisesRegex(datasets.DatasetError, "normalise them"):
            datasets.prepare("x", self.folder, "cosine")
        datasets.prepare("x", self.folder, None)
        self.put(self.random(300, 8), self.random(6, 8))
        with self.assertRaisesRegex(datasets.DatasetError, "belongs to other data"):
            datasets.prepare("x", self.folder, None)

    def test_a_mixture_is_the_same_each_time(self) -> None:
        mixture = datasets.Mixture(500, 20, 16, 4, 10, 0.6, 5)
        files = [self.folder / name for name in ("a.npy", "b.npy", "c.npy", "d.npy")]
        mixture.write(files[0], files[1])
        mixture.write(files[2], files[3])
        self.assertEqual(files[0].read_bytes(), files[2].read_bytes())
        self.assertEqual(files[1].read_bytes(), files[3].read_bytes())
        self.assertEqual(np.load(files[0]).shape, (500, 16))


if __name__ == "__main__":
    unittest.main()
