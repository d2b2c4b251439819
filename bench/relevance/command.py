"""The command line, and the course of a run."""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from . import corpus, fusion, metrics, offline, report, server
from .corpus import Corpus, CorpusError
from .server import Answers, Client, Library, RefusedError, ServerError


def home() -> Path:
    """Where embeddings and results are kept, with what else the benchmarks keep."""
    return Path(os.environ.get("ARRWDB_BENCH", Path.home() / ".cache" / "arrwdb-bench"))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m relevance",
        description="How relevant the answers of vector, keyword and hybrid search are, beside the "
        "same model and BM25 computed here.",
    )
    add = parser.add_argument
    add("collections", type=Path, nargs="+", metavar="FOLDER", help="test collections, BEIR layout")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--binary", type=Path, help="arrwdb, started here on a fresh directory")
    which.add_argument("--server", help="http://host:port of one that runs")
    which.add_argument("--offline", action="store_true", help="the references alone")
    add("--rounds", type=int, default=3, help="times that every query is asked, for latencies")
    add(
        "--titles",
        choices=server.TITLES,
        default=server.TITLES[0],
        help="where titles go; the references have them in the text",
    )
    add(
        "--given-vectors",
        action="store_true",
        help="send documents with the reference's vectors: quick, to try keyword and hybrid search",
    )
    add(
        "--also",
        action="append",
        default=[],
        type=body,
        metavar="NAME=JSON",
        help="another search: what its body has beside `query` and `k`",
    )
    add("--cache", type=Path, default=home() / "relevance", help="embeddings, by their texts")
    add("--json", type=Path, help="all figures; otherwise a file in the folder of results")
    add("--markdown", type=Path, help="the tables, which are printed as well")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("at least one round is needed")
    return options


def body(text: str) -> tuple[str, dict[str, Any]]:
    """A name, and what a search's body has."""
    name, _, rest = text.partition("=")
    try:
        parsed = json.loads(rest)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=JSON: {error}") from None
    if not name or not isinstance(parsed, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=JSON with an object")
    return name, parsed


def progress(text: str) -> None:
    """A line about what goes on, apart from the tables."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


class Measurement:
    """One collection: what was measured of it."""

    def __init__(self, options: argparse.Namespace, client: Client | None, folder: Path) -> None:
        self.options = options
        self.client = client
        self.corpus: Corpus = corpus.load(folder)
        self.result: dict[str, Any] = {
            "documents": len(self.corpus.documents),
            "queries": len(self.corpus.queries),
            "left_out": self.corpus.left_out,
            "cut": self.corpus.cut,
            "fingerprint": self.corpus.fingerprint(),
            "systems": {},
            "bm25": {},
            "ndcg_of_queries": {},
            "told": [],
        }

    def run(self) -> dict[str, Any]:
        if self.client is not None:
            self.ask_server(self.client)
        self.compute()
        return self.result

    def put(self, name: str, rankings: dict[str, list[str]], **more: float) -> None:
        figures = metrics.evaluate(rankings, self.corpus.judgements)
        self.result["systems"][name] = {**figures, **more}
        self.result["ndcg_of_queries"][name] = {
            query: round(metrics.ndcg(rankings.get(query, []), grades), 4)
            for query, grades in self.corpus.judgements.items()
        }
        told = " ".join(f"{metric} {figure:.4f}" for metric, figure in figures.items())
        progress(f"{self.corpus.name}: {name}: {told}")

    def ask_server(self, client: Client) -> None:
        vectors = None
        if self.options.given_vectors:
            vectors = offline.vectors(self.corpus, self.options.cache)
            self.tell("The documents came with the reference's vectors, not the server's own.")
        library = Library(client, self.corpus, self.options.titles, vectors)
        try:
            progress(f"{self.corpus.name}: sending {len(self.corpus.documents)} documents")
            self.result["fill_seconds"] = library.fill()
            answers = {report.SERVER[mode]: answer for mode, answer in self.search(library).items()}
            for name, more in self.options.also:
                try:
                    answers[f"server, {name}"] = library.search(more, self.options.rounds)
                except RefusedError as error:
                    self.tell(f"The server refuses {name}: {error}")
        finally:
            library.delete()
        for name, answer in answers.items():
            self.put(name, answer.rankings, **report.latency(answer.seconds))

    def search(self, library: Library) -> dict[str, Answers]:
        """Every way of searching that the server knows."""
        found: dict[str, Answers] = {}
        for mode in server.MODES:
            try:
                found[mode] = library.search({"mode": mode}, self.options.rounds)
            except RefusedError as error:
                if error.status != server.UNPROCESSABLE:
                    raise
                self.tell(f"The server does not take `mode: {mode}` of search: {error}")
                if mode == "vector":
                    found[mode] = library.search({}, self.options.rounds)
        vector, keyword = found["vector"], found.get("keyword")
        if keyword and keyword.rankings == vector.rankings:
            self.tell(
                "The server does not know `mode` of search: keyword search gives what vector "
                "search gives, to every query. Neither it nor hybrid search is measured."
            )
            return {"vector": vector}
        if keyword:
            self.compare_routes(library, keyword)
        return found

    def compare_routes(self, library: Library, keyword: Answers) -> None:
        """The route of keyword search has to find what the mode finds."""
        try:
            differing = sum(
                library.keyword_route(query.text) != keyword.rankings[query.id]
                for query in self.corpus.queries
            )
        except RefusedError as error:
            self.tell(f"`search/keyword` does not answer: {error}")
            return
        if differing:
            self.tell(f"`search/keyword` and `mode: keyword` differ in {differing} queries.")

    def tell(self, text: str) -> None:
        progress(f"{self.corpus.name}: {text}")
        self.result["told"].append(text)

    def compute(self) -> None:
        """The references."""
        progress(f"{self.corpus.name}: the model, exactly")
        exact = offline.vector(self.corpus, self.options.cache)
        self.put(report.EXACT, offline.ids(exact))
        progress(f"{self.corpus.name}: BM25")
        keywords = offline.Keywords(self.corpus)
        plain = keywords.search(*offline.DEFAULT)
        self.result["bm25"][report.BM25] = offline.DEFAULT
        self.put(report.BM25, offline.ids(plain))
        self.result["bm25"][report.BM25_TUNED], tuned = keywords.tuned()
        self.put(report.BM25_TUNED, offline.ids(tuned))
        self.put(report.FUSED, fusion.fuse(exact, plain, fusion.reciprocal(60)))
        self.put(report.FUSED_SCORES, fusion.fuse(exact, plain, fusion.from_zero(0.6), depth=200))


def main() -> int:
    """Measures and reports; 0 only when every goal was measured and met."""
    options = parse(sys.argv[1:])
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    output = options.json or home() / "results" / f"relevance-{stamp}.json"
    told = {"rounds": options.rounds, "titles": options.titles}
    told |= {"given_vectors": options.given_vectors}
    run: dict[str, Any] = {"options": told, "collections": {}}
    try:
        with contextlib.ExitStack() as stack:
            url = stack.enter_context(server.started(options.binary)) if options.binary else None
            url = url or options.server
            for folder in options.collections:
                client = Client(url) if url else None
                measurement = Measurement(options, client, folder)
                if measurement.corpus.name in run["collections"]:
                    raise CorpusError(f"{folder} has the name of another: rename one of them")
                run["collections"][measurement.corpus.name] = measurement.run()
    except (CorpusError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    run["goals_met"] = report.all_met(run)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(run, indent=1) + "\n")
    text = report.document(run)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    progress(f"all figures are in {output}")
    return 0 if run["goals_met"] else 1
