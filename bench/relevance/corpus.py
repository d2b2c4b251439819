"""Test collections on disk: documents, queries, and judgements of which documents are relevant.

A folder has `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and
`qrels/test.tsv` or `qrels.tsv`: the layout of BEIR.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Judgements, in the order in which they are looked for.
JUDGEMENTS = ("qrels/test.tsv", "qrels.tsv")
#: Columns of a judgement: BEIR's three, or TREC's four with one of no meaning in second place.
BEIR_COLUMNS = 3
TREC_COLUMNS = 4

#: Characters of a query that the server takes; longer ones are cut for everybody.
QUERY_CHARACTERS = 1_000

#: Which documents are relevant to a query, and how much.
Judgements = dict[str, dict[str, int]]


class CorpusError(Exception):
    """A collection that cannot be used; the text says what to do."""


@dataclass(frozen=True)
class Document:
    """A document of a collection."""

    id: str
    title: str
    text: str

    @property
    def whole(self) -> str:
        """What is searched: the title and the text."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True)
class Query:
    """A query that has judgements."""

    id: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """A test collection."""

    name: str
    documents: list[Document]
    queries: list[Query]
    judgements: Judgements
    #: Judged queries of which no document is relevant, or that do not exist: not asked.
    left_out: int = 0
    #: Queries that were too long for the server.
    cut: int = 0

    def fingerprint(self, queries: bool = False) -> str:
        """Tells the documents, or the queries, from others."""
        digest = hashlib.sha256()
        texts = self.queries if queries else self.documents
        for one in texts:
            whole = one.text if isinstance(one, Query) else one.whole
            digest.update(json.dumps([one.id, whole]).encode())
        return digest.hexdigest()[:16]


def load(folder: Path) -> Corpus:
    """Reads a folder; only queries with a relevant document are kept."""
    documents = [
        Document(text(row, "_id"), text(row, "title"), text(row, "text"))
        for row in rows(folder / "corpus.jsonl")
    ]
    documents = [one for one in documents if one.whole]
    known = {one.id for one in documents}
    if len(known) != len(documents) or not known:
        raise CorpusError(f"{folder / 'corpus.jsonl'} needs documents, each with an _id of its own")
    judgements = relevant(read_judgements(judgements_path(folder)), known)
    queries = {text(row, "_id"): text(row, "text") for row in rows(folder / "queries.jsonl")}
    asked = [Query(id, cut(queries[id])) for id in judgements if queries.get(id) and judgements[id]]
    if not asked:
        raise CorpusError(
            f"{folder} has no query with a relevant document: compare the ids of its three files"
        )
    kept = {one.id: judgements[one.id] for one in asked}
    long = sum(one.text != queries[one.id] for one in asked)
    name = folder.resolve().name
    return Corpus(name, documents, asked, kept, len(judgements) - len(kept), long)


def cut(query: str) -> str:
    """A query as far as the server takes it, up to the end of a word."""
    if len(query) <= QUERY_CHARACTERS:
        return query
    return query[: QUERY_CHARACTERS + 1].rpartition(" ")[0] or query[:QUERY_CHARACTERS]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    if not path.is_file():
        raise CorpusError(
            f"{path} is missing: a collection has corpus.jsonl, queries.jsonl and qrels/test.tsv "
            "or qrels.tsv, which `python -m relevance.convert` makes of older formats"
        )
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise CorpusError(f"{path}:{number} is not JSON: {error}") from None
            if not isinstance(row, dict) or "_id" not in row:
                raise CorpusError(f"{path}:{number} is not an object with an _id")
            yield row


def text(row: dict[str, Any], key: str) -> str:
    """A value as text; empty where there is none."""
    value = row.get(key)
    return "" if value is None else str(value).strip()


def judgements_path(folder: Path) -> Path:
    """Where the judgements are."""
    for name in JUDGEMENTS:
        if (folder / name).is_file():
            return folder / name
    raise CorpusError(f"{folder} has neither {' nor '.join(JUDGEMENTS)}")


def read_judgements(path: Path) -> Judgements:
    """Grades as they are written: BEIR's with or without header, or TREC's of four columns."""
    found: Judgements = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            columns = line.split()
            if not columns or (number == 1 and not is_grade(columns[-1])):
                continue
            if len(columns) == TREC_COLUMNS:
                columns.pop(1)
            if len(columns) != BEIR_COLUMNS or not is_grade(columns[-1]):
                raise CorpusError(f"{path}:{number} is not a query, a document and a grade")
            query, document, grade = columns
            found.setdefault(query, {})[document] = int(float(grade))
    return found


def is_grade(column: str) -> bool:
    """Whether a column is a whole number."""
    try:
        return float(column).is_integer()
    except ValueError:
        return False


def relevant(judgements: Judgements, known: set[str]) -> Judgements:
    """What is relevant, of documents that are there; of queries with nothing left, nothing."""
    return {
        query: {id: grade for id, grade in grades.items() if grade > 0 and id in known}
        for query, grades in judgements.items()
    }
