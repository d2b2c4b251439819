import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np

from relevance import corpus, offline

DOCUMENTS = [
    corpus.Document("a", "", "the cats are running over the hills"),
    corpus.Document("b", "Dogs", "a dog barks at one cat"),
    corpus.Document("c", "", "nothing of interest"),
]
QUERIES = [
    corpus.Query("1", "Dogs running"),
    corpus.Query("2", "the of at"),
    corpus.Query("3", "unheard"),
]
SMALL = corpus.Corpus("small", DOCUMENTS, QUERIES, {"1": {"b": 1}, "2": {"c": 1}})


class OfflineTest(unittest.TestCase):
    def test_keywords_are_stems_without_stop_words(self) -> None:
        found = offline.ids(offline.Keywords(SMALL).search(1.5, 0.75))
        # The dog is there twice, once as a title; stop words and unknown words find nothing.
        self.assertEqual(found, {"1": ["b", "a"], "2": [], "3": []})

    def test_tuning_takes_the_best_of_the_grid(self) -> None:
        keywords = offline.Keywords(SMALL)
        rankings = {offline.DEFAULT: ["a", "b"], (1.0, 0.4): ["b", "a"]}

        def search(k1: float, b: float) -> offline.Scored:
            found = rankings.get((k1, b), [])
            return {"1": [(id, 1.0) for id in found]}

        with mock.patch.object(keywords, "search", search):
            parameters, scored = keywords.tuned()
        self.assertEqual(parameters, (1.0, 0.4))
        self.assertEqual(offline.ids(scored), {"1": ["b", "a"]})

    def test_the_best_are_ordered_and_equal_ones_are_as_they_come(self) -> None:
        scores = np.array([[1.0, 3.0, 1.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
        found = offline.ids(offline.best(SMALL, scores, above=0.0))
        self.assertEqual(found, {"1": ["b", "a", "c"], "2": ["c"], "3": []})
        self.assertEqual(offline.ids(offline.best(SMALL, scores))["3"], ["a", "b", "c"])

    def test_embeddings_are_kept_by_their_texts(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            vectors = np.eye(3, dtype=np.float32)
            with mock.patch.object(offline, "embed", return_value=vectors) as embed:
                first = offline.vector(SMALL, Path(folder))
                self.assertEqual(offline.vector(SMALL, Path(folder)), first)
            self.assertEqual(embed.call_count, 2)
            self.assertEqual(offline.ids(first)["2"], ["b", "a", "c"])


if __name__ == "__main__":
    unittest.main()
