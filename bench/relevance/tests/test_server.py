import argparse
import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from relevance import command, corpus, report, server
from relevance.tests.fake_server import FakeServer

LONG = "filler " * 1500 + "needle"


def collection(*extra: corpus.Document) -> corpus.Corpus:
    documents = [
        corpus.Document("1", "red", "apples and pears"),
        corpus.Document("2", "", "green pears"),
        corpus.Document("3", "", LONG),
        *extra,
    ]
    queries = [corpus.Query("q", "pears red"), corpus.Query("r", "needle")]
    return corpus.Corpus("small", documents, queries, {"q": {"1": 1}, "r": {"3": 1}})


class LibraryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.fake = FakeServer()
        self.addCleanup(self.fake.close)
        self.client = server.Client(self.fake.url)
        self.addCleanup(self.client.connection.close)

    def library(self, *extra: corpus.Document, titles: str = "in-text") -> server.Library:
        library = server.Library(self.client, collection(*extra), titles)
        library.fill()
        return library

    def sent(self) -> list[dict[str, Any]]:
        return list(self.fake.documents.values())

    def test_documents_are_one_passage_unless_they_are_too_long(self) -> None:
        self.library()
        self.assertEqual(self.sent()[0]["texts"], ["red apples and pears"])
        self.assertEqual(self.sent()[0]["title"], "-")
        self.assertEqual("".join(self.sent()[2]["texts"]), LONG)
        self.assertEqual([len(text) for text in self.sent()[2]["texts"]], [10_000, 506])

    def test_titles_may_be_sent_apart(self) -> None:
        self.library(titles="apart")
        first, second, _ = self.sent()
        self.assertEqual((first["title"], first["texts"]), ("red", ["apples and pears"]))
        self.assertEqual((second["title"], second["texts"]), ("-", ["green pears"]))

    def test_titles_may_be_sent_twice(self) -> None:
        self.library(corpus.Document("4", "alone", ""), titles="both")
        first, second, _, last = self.sent()
        self.assertEqual((first["title"], first["texts"]), ("red", ["red apples and pears"]))
        self.assertEqual((second["title"], second["texts"]), ("-", ["green pears"]))
        self.assertEqual((last["title"], last["texts"]), ("alone", ["alone"]))

    def test_vectors_may_be_given(self) -> None:
        vectors = np.array([[1, 0], [0, 1], [0.5, 0.25]], np.float32)
        server.Library(self.client, collection(), vectors=vectors).fill()
        self.assertEqual(
            self.sent()[0]["chunks"], [{"text": "red apples and pears", "embedding": [1.0, 0.0]}]
        )
        self.assertEqual([one["embedding"] for one in self.sent()[2]["chunks"]], [[0.5, 0.25]] * 2)

    def test_answers_are_documents_by_their_best_passage(self) -> None:
        answers = self.library().search({"mode": "vector"}, 2)
        self.assertEqual(answers.rankings, {"q": ["1", "2", "3"], "r": ["3", "1", "2"]})
        self.assertEqual(len(answers.seconds), 4)
        self.assertEqual(self.fake.requests[-1][2], {"query": "needle", "k": 100, "mode": "vector"})

    def test_many_documents_go_in_batches(self) -> None:
        many = [corpus.Document(f"x{number}", "", "text") for number in range(130)]
        self.library(*many)
        batches = [
            len(body["documents"]) for _, path, body in self.fake.requests if "batch" in path
        ]
        self.assertEqual(batches, [64, 64, 5])
        self.assertEqual(len(self.fake.documents), 133)

    def test_what_the_server_does_not_take_ends_the_run(self) -> None:
        with self.assertRaisesRegex(server.ServerError, "it asked for it"):
            self.library(corpus.Document("4", "", "refuse me"))
        library = self.library()
        library.known.popitem()
        with self.assertRaisesRegex(server.ServerError, "an answer has"):
            library.search({}, 1)
        with self.assertRaisesRegex(server.ServerError, "http://host:port"):
            server.Client("127.0.0.1:8000")
        self.fake.close()
        self.client.connection.close()
        with self.assertRaisesRegex(server.ServerError, "no answer"):
            library.search({}, 1)

    def test_a_missing_program_is_told(self) -> None:
        with (
            self.assertRaisesRegex(server.ServerError, "build it with"),
            server.started(Path("nowhere")),
        ):
            self.fail("it was started")

    def test_a_program_that_ends_is_told_with_its_words(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "program"
            program.write_text("#!/bin/sh\necho no such setting\nexit 3\n")
            program.chmod(0o755)
            with (
                self.assertRaisesRegex(server.ServerError, "ended with 3.*no such setting"),
                server.started(program),
            ):
                self.fail("it was started")


class CommandTest(unittest.TestCase):
    """The whole of a run, with the references replaced."""

    def run_on(self, fake: FakeServer, *folders: str) -> tuple[int, dict[str, Any], str]:
        self.addCleanup(fake.close)

        def compute(measurement: command.Measurement) -> None:
            for name in (report.EXACT, report.BM25, report.BM25_TUNED):
                measurement.put(name, {"q": ["1"], "r": ["3"]})

        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "out.json"
            arguments = ["relevance", *(folders or ["small"]), "--server", fake.url]
            arguments += ["--json", str(output)]
            arguments += ["--also", 'words={"mode": "keyword", "extra": 1}']
            printed, told = io.StringIO(), io.StringIO()
            with (
                mock.patch("sys.argv", arguments),
                mock.patch.object(corpus, "load", return_value=collection()),
                mock.patch.object(command.Measurement, "compute", compute),
                contextlib.redirect_stdout(printed),
                contextlib.redirect_stderr(told),
            ):
                status = command.main()
            self.error = told.getvalue().splitlines()[-1]
            return status, json.loads(output.read_text()), printed.getvalue()

    def test_all_modes_are_measured_and_the_library_is_deleted(self) -> None:
        fake = FakeServer()
        status, run, _ = self.run_on(fake)
        measured = run["collections"]["small"]
        self.assertEqual(measured["told"], [])
        self.assertEqual(set(report.SERVER.values()) - set(measured["systems"]), set())
        queries = measured["ndcg_of_queries"][report.SERVER["keyword"]]
        self.assertEqual(queries, {"q": 1.0, "r": 1.0})
        self.assertIn("p99_ms", measured["systems"][report.SERVER["hybrid"]])
        self.assertEqual(fake.requests[-1][:2], ("DELETE", "/v1/libraries/lib"))
        # Hybrid search finds what vector search finds here, which is no more.
        self.assertEqual((status, run["goals_met"]), (1, False))

    def test_another_search_is_told_with_the_rest(self) -> None:
        fake = FakeServer()
        _, run, text = self.run_on(fake)
        measured = run["collections"]["small"]["systems"]
        self.assertEqual(measured["server, words"]["MAP"], measured["server, keyword"]["MAP"])
        self.assertIn("| server, words |", text)
        bodies = [body for _, path, body in fake.requests if path.endswith("/search")]
        self.assertEqual(bodies[-1], {"query": "needle", "k": 100, "mode": "keyword", "extra": 1})
        for wrong in ("{}", "x={", "x=1"):
            with self.assertRaises(argparse.ArgumentTypeError):
                command.body(wrong)

    def test_a_server_without_modes_is_told(self) -> None:
        fake = FakeServer(modes=())
        _, run, text = self.run_on(fake)
        measured = run["collections"]["small"]
        self.assertIn(report.SERVER["vector"], measured["systems"])
        self.assertNotIn(report.SERVER["keyword"], measured["systems"])
        self.assertIn("The server refuses words: status 422", text)
        self.assertIn("does not take `mode: keyword` of search: status 422: /mode: is not", text)

    def test_two_collections_of_one_name_are_refused(self) -> None:
        fake = FakeServer()
        with self.assertRaises(FileNotFoundError):
            self.run_on(fake, "small", "other/small")
        self.assertEqual(
            self.error, "error: other/small has the name of another: rename one of them"
        )

    def test_a_server_that_does_not_heed_modes_is_told(self) -> None:
        fake = FakeServer(modes=())
        fake.heedless = True
        _, run, text = self.run_on(fake)
        self.assertNotIn(report.SERVER["hybrid"], run["collections"]["small"]["systems"])
        self.assertIn("keyword search gives what vector search gives", text)

    def test_a_route_that_finds_something_else_is_told(self) -> None:
        fake = FakeServer()
        fake.routes_agree = False
        _, _, text = self.run_on(fake)
        self.assertIn("`search/keyword` and `mode: keyword` differ in 2 queries", text)


if __name__ == "__main__":
    unittest.main()
