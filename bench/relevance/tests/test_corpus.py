import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

from relevance import corpus


class CorpusTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def put(self, name: str, *rows: dict[str, Any]) -> None:
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def put_all(self, judgements: str, name: str = "qrels.tsv") -> corpus.Corpus:
        self.put(
            "corpus.jsonl",
            {"_id": "a", "title": "A title", "text": "and a text"},
            {"_id": 2, "title": None, "text": "alone"},
            {"_id": "empty", "title": "", "text": " "},
        )
        self.put("queries.jsonl", {"_id": "1", "text": "one"}, {"_id": "2", "text": "two"})
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(judgements)
        return corpus.load(self.folder)

    def test_layouts_of_judgements_mean_the_same(self) -> None:
        rows = (("1", "a", "2"), ("1", "2", "0"), ("2", "2", "1"))
        plain = "".join("\t".join(row) + "\n" for row in rows)
        trec = "".join(f"{query} 0 {document} {grade}\n" for query, document, grade in rows)
        wanted = {"1": {"a": 2}, "2": {"2": 1}}
        for text in (plain, "query-id\tcorpus-id\tscore\n" + plain, trec):
            self.assertEqual(self.put_all(text).judgements, wanted)
        self.assertEqual(self.put_all(plain, "qrels/test.tsv").judgements, wanted)

    def test_documents_are_title_and_text_and_empty_ones_are_left_out(self) -> None:
        loaded = self.put_all("1\ta\t1\n")
        self.assertEqual([one.whole for one in loaded.documents], ["A title and a text", "alone"])
        self.assertEqual([one.id for one in loaded.documents], ["a", "2"])

    def test_queries_with_nothing_to_find_are_not_asked(self) -> None:
        loaded = self.put_all("1\ta\t1\n2\tempty\t1\n2\ta\t0\n3\ta\t1\n")
        self.assertEqual([one.id for one in loaded.queries], ["1"])
        self.assertEqual(loaded.left_out, 2)

    def test_long_queries_are_cut_at_a_word(self) -> None:
        self.assertEqual(corpus.cut("word " * 300), ("word " * 200).strip())
        self.assertEqual(len(corpus.cut("x" * 2000)), 1000)
        self.assertEqual(corpus.cut("y" * 1000), "y" * 1000)

    def test_fingerprints_tell_documents_and_queries_apart(self) -> None:
        loaded = self.put_all("1\ta\t1\n")
        before = loaded.fingerprint()
        self.assertNotEqual(before, loaded.fingerprint(queries=True))
        loaded.documents[0] = corpus.Document("a", "Another", "text")
        self.assertNotEqual(before, loaded.fingerprint())

    def test_what_cannot_be_used_is_refused_with_advice(self) -> None:
        with self.assertRaisesRegex(corpus.CorpusError, "relevance.convert"):
            corpus.load(self.folder)
        with self.assertRaisesRegex(corpus.CorpusError, "compare the ids"):
            self.put_all("7\ta\t1\n")
        with self.assertRaisesRegex(corpus.CorpusError, "qrels.tsv:2 is not"):
            self.put_all("1\ta\t1\n1\ta\tmuch\n")
        self.put("corpus.jsonl", {"_id": "a", "text": "x"}, {"_id": "a", "text": "y"})
        with self.assertRaisesRegex(corpus.CorpusError, "an _id of its own"):
            corpus.load(self.folder)
        (self.folder / "corpus.jsonl").write_text("{}\n")
        with self.assertRaisesRegex(corpus.CorpusError, "corpus.jsonl:1 is not an object"):
            corpus.load(self.folder)


if __name__ == "__main__":
    unittest.main()
