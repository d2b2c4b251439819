r"""Older test collections in the layout that the rest reads.

    python -m relevance.convert smart DEST --documents cran.all.1400 --queries cran.qry \
        --judgements cranqrel --by-position
    python -m relevance.convert lisa DEST --documents LISA0.001 LISA0.501 ... \
        --queries LISA.QUE --judgements LISARJ.NUM
    python -m relevance.convert npl DEST --documents doc-text --queries query-text \
        --judgements rlv-ass
    python -m relevance.convert cf DEST --documents cf74.xml ... cf79.xml \
        --queries cfquery.xml --judgements cfquery.xml

`smart` is the format of `.I`, `.T` and `.W` (Cranfield, MED, CACM, CISI). Judgements are taken as
they are used elsewhere: every pair that is listed is relevant, whatever its code. Those of `cf`
(Cystic Fibrosis) are of four judges, 0 to 2 each, and the grade is their sum.
"""

import argparse
import html
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

#: Identifier, title, text.
Record = tuple[str, str, str]
#: Query, document, grade.
Judgement = tuple[str, str, int]

#: Columns of a judgement in TREC's form, the second of which has no meaning.
TREC_COLUMNS = 4


class ConvertError(Exception):
    """A file that is not of the format; the text says what to do."""


def smart_records(text: str) -> Iterator[Record]:
    """Records of fields: `.I` the identifier, `.T` the title, `.W` the text; no others."""
    for record in re.split(r"^\.I\s+", text, flags=re.MULTILINE)[1:]:
        identifier, *lines = record.split("\n")
        fields: dict[str, list[str]] = {}
        current: list[str] = []
        for line in lines:
            if re.fullmatch(r"\.[A-Z]\s*", line):
                current = fields.setdefault(line[1], [])
            else:
                current.append(line)
        title = plain(fields.get("T", []))
        body = plain(fields.get("W", []))
        # Cranfield's texts begin with their title, which would count twice.
        if title and body.startswith(title):
            body = body.removeprefix(title).strip()
        # Some files end with a record of no number.
        if identifier.strip():
            yield str(int(identifier)), title, body


def smart_judgements(text: str) -> Iterator[Judgement]:
    """Lines of query and document, or of TREC's columns."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    trec = all(len(row) == TREC_COLUMNS and row[1] == "0" for row in rows)
    for row in rows:
        yield str(int(row[0])), str(int(row[2] if trec else row[1])), 1


def lisa_records(text: str) -> Iterator[Record]:
    """Records between rules of stars: a title up to an empty line, then the text."""
    for record in re.split(r"^\*{20,}\s*$", text, flags=re.MULTILINE):
        match = re.match(r"\s*Document\s+(\d+)\s*\n(.*)", record, flags=re.DOTALL)
        if match:
            title, _, body = re.sub(r"\n[ \t]+\n", "\n\n", match[2]).partition("\n\n")
            yield match[1], plain([title]), plain([body])


def lisa_queries(text: str) -> Iterator[Record]:
    """A number on a line of its own, then the query up to `#`."""
    for query in text.split("#"):
        match = re.match(r"\s*(\d+)\s*\n(.*)", query, flags=re.DOTALL)
        if match:
            yield match[1], "", plain([match[2]])


def lisa_judgements(text: str) -> Iterator[Judgement]:
    """Numbers only: of each query its own, how many documents, and the documents."""
    numbers = text.split()
    while numbers:
        query, count, *numbers = numbers
        documents, numbers = numbers[: int(count)], numbers[int(count) :]
        if len(documents) != int(count):
            raise ConvertError(f"query {query} has {len(documents)} of {count} documents")
        for document in documents:
            yield query, document, 1


def npl_records(text: str) -> Iterator[Record]:
    """A number on a line of its own, then the text up to a line with `/`."""
    for record in re.split(r"^\s*/\s*$", text, flags=re.MULTILINE):
        match = re.match(r"\s*(\d+)\s*\n(.*)", record, flags=re.DOTALL)
        if match:
            yield match[1], "", plain([match[2]])


def npl_judgements(text: str) -> Iterator[Judgement]:
    """Of each query the documents, in place of its text."""
    for query, _, documents in npl_records(text):
        for document in documents.split():
            yield query, document, 1


def cf_records(text: str) -> Iterator[Record]:
    """`<RECORD>`s: number, title, and abstract, or an extract where there is none."""
    for record in re.findall(r"<RECORD>(.*?)</RECORD>", text, flags=re.DOTALL):
        body = element(record, "ABSTRACT") or element(record, "EXTRACT")
        yield str(int(element(record, "RECORDNUM"))), element(record, "TITLE"), body


def cf_queries(text: str) -> Iterator[Record]:
    """`<QUERY>`s: number and text."""
    for query in re.findall(r"<QUERY>(.*?)</QUERY>", text, flags=re.DOTALL):
        yield str(int(element(query, "QueryNumber"))), "", element(query, "QueryText")


def cf_judgements(text: str) -> Iterator[Judgement]:
    """Of each `<QUERY>` the documents, with a digit of each judge."""
    for query in re.findall(r"<QUERY>(.*?)</QUERY>", text, flags=re.DOTALL):
        number = str(int(element(query, "QueryNumber")))
        for digits, document in re.findall(r'<Item score="(\d+)">\s*(\d+)\s*<', query):
            yield number, str(int(document)), sum(map(int, digits))


def element(text: str, name: str) -> str:
    """What the first element of a name holds; nothing where there is none."""
    found = re.search(rf"<{name}>(.*?)</{name}>", text, flags=re.DOTALL)
    return plain([html.unescape(found[1])]) if found else ""


def plain(lines: Iterable[str]) -> str:
    """Lines as one, with single blanks."""
    return " ".join(" ".join(lines).split())


FORMATS = {
    "smart": (smart_records, smart_records, smart_judgements),
    "lisa": (lisa_records, lisa_queries, lisa_judgements),
    "npl": (npl_records, npl_records, npl_judgements),
    "cf": (cf_records, cf_queries, cf_judgements),
}


def read(paths: Iterable[Path]) -> str:
    """The files as one."""
    # Some of these are from before any encoding was agreed on; their few odd bytes are no letters.
    return "\n".join(path.read_text(encoding="latin-1").replace("\r", "") for path in paths)


def convert(options: argparse.Namespace) -> str:
    """Writes the three files; returns what there is of each."""
    of_documents, of_queries, of_judgements = FORMATS[options.format]
    # LISA has four documents twice.
    documents = list(dict.fromkeys(of_documents(read(options.documents))))
    queries = list(of_queries(read([options.queries])))
    if options.by_position:
        queries = [(str(place), *rest) for place, (_, *rest) in enumerate(queries, 1)]
    # CACM has an empty one after the last.
    queries = [query for query in queries if any(query[1:])]
    judgements = list(dict.fromkeys(of_judgements(read([options.judgements]))))
    for what, ids in (("documents", documents), ("queries", queries)):
        if len({id for id, *_ in ids}) != len(ids) or not ids:
            raise ConvertError(
                f"the {what} have no identifiers of their own: is it the right file?"
            )
    known = ({id for id, *_ in queries}, {id for id, *_ in documents})
    lost = [one for one in judgements if one[0] not in known[0] or one[1] not in known[1]]
    options.folder.mkdir(parents=True, exist_ok=True)
    write(options.folder / "corpus.jsonl", ("_id", "title", "text"), documents)
    write(
        options.folder / "queries.jsonl", ("_id", "text"), [(id, text) for id, _, text in queries]
    )
    lines = [f"{query}\t{document}\t{grade}\n" for query, document, grade in judgements]
    (options.folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    judged = len({query for query, *_ in judgements})
    return (
        f"{options.folder}: {len(documents)} documents, {len(queries)} queries, {judged} of them "
        f"judged, {len(judgements)} judgements, {len(lost)} of them of something that is not there"
    )


def write(path: Path, keys: tuple[str, ...], records: Iterable[tuple[str, ...]]) -> None:
    """Lines of JSON."""
    with path.open("w", encoding="utf-8") as out:
        for record in records:
            out.write(json.dumps(dict(zip(keys, record, strict=True)), ensure_ascii=False) + "\n")


def main() -> int:
    """Converts one collection."""
    parser = argparse.ArgumentParser(
        prog="python -m relevance.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("format", choices=FORMATS)
    add("folder", type=Path, help="where the collection goes; its name is the folder's")
    add("--documents", type=Path, nargs="+", required=True)
    add("--queries", type=Path, required=True)
    add("--judgements", type=Path, required=True)
    add(
        "--by-position",
        action="store_true",
        help="judgements number the queries as they come (Cranfield), not by their identifiers",
    )
    try:
        print(convert(parser.parse_args()))
    except (ConvertError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
