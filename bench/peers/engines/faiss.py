"""faiss: exact, graph, inverted lists, and inverted lists of quantised rows that are refined."""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from .engine import GRAPH_CANDIDATES, GRAPH_LINKS, Candidates, Dial, Engine, Parameters

FILE = "index.faiss"
#: Rows a list that the centroids are trained with: faiss warns below 39 and samples above 256.
TRAINING_ROWS = 64


def lists(rows: int) -> int:
    """Inverted lists for so many rows: the power of two nearest to four times the root."""
    return 2 ** round(np.log2(4 * rows**0.5))


def probes(**fixed: int) -> Dial:
    """How many lists are searched."""
    return Dial("nprobe", 1, 2048, fixed)


#: For each kind, faiss's description of the index for so many rows of so many numbers.
DESCRIPTIONS: dict[str, Callable[[int, int], str]] = {
    "flat": lambda _rows, _dimension: "Flat",
    "hnsw": lambda _rows, _dimension: f"HNSW{GRAPH_LINKS},Flat",
    "ivf": lambda rows, _dimension: f"IVF{lists(rows)},Flat",
    # Two numbers to a code of 4 bits, scanned in registers; then exact distances of the best.
    "ivfpqfs-refine": lambda rows, dimension: f"IVF{lists(rows)},PQ{dimension // 2}x4fs,RFlat",
}
DIALS: dict[str, tuple[Dial, ...]] = {
    "flat": (),
    "hnsw": (Candidates("efSearch", 10, 4000),),
    "ivf": (probes(),),
    "ivfpqfs-refine": tuple(probes(k_factor_rf=factor) for factor in (2, 4, 8, 16, 32)),
}


class Faiss(Engine):
    """An index of faiss's factory. Unit vectors are searched by L2, which orders them alike."""

    def __init__(self, kind: str) -> None:
        self.describe = DESCRIPTIONS[kind]
        self.dials = DIALS[kind]

    def build(self, base: np.ndarray, metric: str, threads: int, folder: Path) -> None:
        del folder
        faiss.omp_set_num_threads(threads)
        rows, dimension = base.shape
        distance = faiss.METRIC_INNER_PRODUCT if metric == "dot" else faiss.METRIC_L2
        self.index = faiss.index_factory(dimension, self.describe(rows, dimension), distance)
        if hasattr(self.index, "hnsw"):
            self.index.hnsw.efConstruction = GRAPH_CANDIDATES
        if not self.index.is_trained:
            count = min(rows, TRAINING_ROWS * lists(rows))
            sample = np.random.default_rng(1).choice(rows, count, replace=False)
            self.index.train(np.ascontiguousarray(base[np.sort(sample)]))
        self.index.add(np.ascontiguousarray(base))

    def save(self, folder: Path) -> None:
        faiss.write_index(self.index, str(folder / FILE))

    def load(self, folder: Path, metric: str, dimension: int) -> None:
        del metric, dimension
        self.index = faiss.read_index(str(folder / FILE))

    def set(self, parameters: Parameters) -> None:
        space = faiss.ParameterSpace()
        for name, value in parameters.items():
            space.set_index_parameter(self.index, name, value)

    def search(self, prepared: np.ndarray, k: int, threads: int) -> np.ndarray:
        if threads != faiss.omp_get_max_threads():
            faiss.omp_set_num_threads(threads)
        return self.index.search(prepared, k)[1]


def create(kind: str) -> Engine:
    """The kind of index is one of `DESCRIPTIONS`."""
    return Faiss(kind)
