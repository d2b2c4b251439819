import argparse
import json
import tempfile
import unittest
from pathlib import Path

from relevance import convert, corpus

SMART = """.I 1
.T
a title of
two lines .
.A
nobody,n.
.W
a title of two lines .
the text of one .
.I 2
.W
the text
of two .
.X
9\t5\t1
.I 3
.T
only a title
.I
"""
SMART_QUERIES = ".I 001\n.W\nfirst\n.I 004\n.W\nsecond\nquery\n.I 0\n"
LISA = """Document    1
A TITLE OF
TWO LINES.

THE TEXT
OF ONE.
********************************************
Document  12
ANOTHER.
\x20\x20\x20
ITS TEXT.
********************************************
Document  12
ANOTHER.

ITS TEXT.
********************************************
"""
LISA_QUERIES = "1\nI AM INTERESTED IN\nTITLES. #\n2\nANYTHING #\n"
LISA_JUDGEMENTS = (
    "           1           1           1\n           2           2           1\n          12\n"
)
NPL = "1\ntext of\none\n   /\n2\n1962 was a year\n/\n"
NPL_JUDGEMENTS = "1\n  2\n/\n2\n  1     2\n/\n   /\n"

CF = """<FILE><RECORD><RECORDNUM>00001 </RECORDNUM><TITLE>Lungs &amp;
    more.</TITLE><ABSTRACT>An
    abstract.</ABSTRACT></RECORD>
<RECORD><RECORDNUM>00002 </RECORDNUM><TITLE>Other.</TITLE>
<EXTRACT>Extract.</EXTRACT></RECORD></FILE>"""
CF_QUERIES = """<QUERY><QueryNumber>00003</QueryNumber><QueryText>What of
    lungs? </QueryText><Item score="1222">  1</Item><Item score="0001">2</Item></QUERY>"""


class ConvertTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_on(
        self, form: str, documents: str, queries: str, judgements: str, by_position: bool = False
    ) -> str:
        paths = [self.folder / name for name in ("documents", "queries", "judgements")]
        for path, text in zip(paths, (documents, queries, judgements), strict=True):
            path.write_text(text)
        self.output = self.folder / "out"
        options = argparse.Namespace(
            format=form,
            folder=self.output,
            documents=[paths[0]],
            queries=paths[1],
            judgements=paths[2],
            by_position=by_position,
        )
        return convert.convert(options)

    def documents(self) -> list[tuple[str, str, str]]:
        rows = map(json.loads, (self.output / "corpus.jsonl").read_text().splitlines())
        return [(row["_id"], row["title"], row["text"]) for row in rows]

    def judgements(self) -> dict[str, set[str]]:
        read = corpus.read_judgements(self.output / "qrels.tsv")
        return {query: set(grades) for query, grades in read.items()}

    def test_smart_records_have_titles_once_and_texts(self) -> None:
        told = self.run_on("smart", SMART, SMART_QUERIES, "1 2 -1\n1 1 4\n4 3 1\n")
        self.assertEqual(
            self.documents(),
            [
                ("1", "a title of two lines .", "the text of one ."),
                ("2", "", "the text of two ."),
                ("3", "only a title", ""),
            ],
        )
        self.assertEqual(self.judgements(), {"1": {"1", "2"}, "4": {"3"}})
        self.assertIn("3 documents, 2 queries, 2 of them judged, 3 judgements, 0 of them", told)
        self.assertEqual(corpus.load(self.output).queries[1].text, "second query")

    def test_smart_judgements_may_number_queries_as_they_come(self) -> None:
        self.run_on("smart", SMART, SMART_QUERIES, "1 2 1\n2 3 1\n", by_position=True)
        found = corpus.load(self.output)
        self.assertEqual([(one.id, one.text) for one in found.queries][1], ("2", "second query"))
        told = self.run_on("smart", SMART, SMART_QUERIES, "1 2 1\n2 3 1\n")
        self.assertIn("1 of them of something that is not there", told)

    def test_smart_judgements_may_have_the_columns_of_trec(self) -> None:
        self.run_on("smart", SMART, SMART_QUERIES, "01 0 2 1\n04 0 3 1\n")
        self.assertEqual(self.judgements(), {"1": {"2"}, "4": {"3"}})
        # CACM has noughts elsewhere, which are no columns of TREC.
        self.run_on("smart", SMART, SMART_QUERIES, "01 0002  0 0\n04 0003  0 0\n")
        self.assertEqual(self.judgements(), {"1": {"2"}, "4": {"3"}})

    def test_lisa(self) -> None:
        self.run_on("lisa", LISA, LISA_QUERIES, LISA_JUDGEMENTS)
        self.assertEqual(
            self.documents(),
            [
                ("1", "A TITLE OF TWO LINES.", "THE TEXT OF ONE."),
                ("12", "ANOTHER.", "ITS TEXT."),
            ],
        )
        self.assertEqual(self.judgements(), {"1": {"1"}, "2": {"1", "12"}})
        self.assertEqual(corpus.load(self.output).queries[0].text, "I AM INTERESTED IN TITLES.")
        with self.assertRaisesRegex(convert.ConvertError, "query 2 has 1 of 2"):
            self.run_on("lisa", LISA, LISA_QUERIES, "1 1 1 2 2 1")

    def test_npl(self) -> None:
        self.run_on("npl", NPL, NPL, NPL_JUDGEMENTS)
        self.assertEqual(self.documents(), [("1", "", "text of one"), ("2", "", "1962 was a year")])
        self.assertEqual(self.judgements(), {"1": {"2"}, "2": {"1", "2"}})

    def test_cystic_fibrosis(self) -> None:
        self.run_on("cf", CF, CF_QUERIES, CF_QUERIES)
        self.assertEqual(
            self.documents(), [("1", "Lungs & more.", "An abstract."), ("2", "Other.", "Extract.")]
        )
        read = corpus.read_judgements(self.output / "qrels.tsv")
        self.assertEqual(read, {"3": {"1": 7, "2": 1}})
        self.assertEqual(corpus.load(self.output).queries[0].text, "What of lungs?")

    def test_files_of_another_format_are_refused(self) -> None:
        with self.assertRaisesRegex(convert.ConvertError, "is it the right file"):
            self.run_on("smart", LISA, SMART_QUERIES, "1 2\n")


if __name__ == "__main__":
    unittest.main()
