import math
import random
import unittest

import pytrec_eval

from relevance import metrics


class MetricsTest(unittest.TestCase):
    def test_figures_of_a_ranking_by_hand(self) -> None:
        grades = {"a": 3, "b": 1, "c": 2, "no": 0}
        ranking = ["x", "b", "no", "a"]
        found = 1 / math.log2(3) + 3 / math.log2(5)
        ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
        self.assertAlmostEqual(metrics.ndcg(ranking, grades), found / ideal)
        self.assertAlmostEqual(metrics.recall(ranking, grades), 2 / 3)
        self.assertAlmostEqual(metrics.reciprocal_rank(ranking, grades), 1 / 2)
        self.assertAlmostEqual(metrics.average_precision(ranking, grades), (1 / 2 + 2 / 4) / 3)

    def test_what_is_too_deep_does_not_count(self) -> None:
        ranking = [str(place) for place in range(200)]
        self.assertEqual(metrics.ndcg(ranking, {"10": 1}), 0)
        self.assertGreater(metrics.ndcg(ranking, {"9": 1}), 0)
        self.assertEqual(metrics.reciprocal_rank(ranking, {"10": 1}), 0)
        self.assertEqual(metrics.recall(ranking, {"99": 1, "100": 1}), 0.5)
        self.assertAlmostEqual(metrics.average_precision(ranking, {"150": 1}), 1 / 151)

    def test_queries_without_an_answer_count_as_nothing_found(self) -> None:
        figures = metrics.evaluate({"1": ["a"]}, {"1": {"a": 1}, "2": {"a": 1}})
        self.assertEqual(set(figures.values()), {0.5})

    def test_figures_are_those_of_trec_eval(self) -> None:
        dice = random.Random(5)
        documents = [str(number) for number in range(300)]
        judgements, rankings, scores = {}, {}, {}
        for query in map(str, range(60)):
            judged = dice.sample(documents, dice.randint(1, 60))
            # Some grades below 0: judged, and of no use.
            judgements[query] = {id: dice.randint(-1, 3) for id in judged}
            judgements[query][judged[0]] = 1
            rankings[query] = dice.sample(documents, dice.randint(0, 150))
            scores[query] = {id: -float(place) for place, id in enumerate(rankings[query])}
        asked = {"ndcg_cut.10", "recall.100", "map"}
        expected = pytrec_eval.RelevanceEvaluator(judgements, asked).evaluate(scores)
        # trec_eval cuts no reciprocal rank: it is given only what counts.
        first = {
            query: {id: score for id, score in one.items() if -score < 10}
            for query, one in scores.items()
        }
        reciprocal = pytrec_eval.RelevanceEvaluator(judgements, {"recip_rank"}).evaluate(first)
        names = {"nDCG@10": "ndcg_cut_10", "recall@100": "recall_100", "MAP": "map"}
        for query, ranking in rankings.items():
            for name, metric in metrics.METRICS.items():
                theirs = (
                    expected[query][names[name]]
                    if name in names
                    else reciprocal[query]["recip_rank"]
                )
                self.assertAlmostEqual(
                    metric(ranking, judgements[query]), theirs, 12, (name, query)
                )


if __name__ == "__main__":
    unittest.main()
