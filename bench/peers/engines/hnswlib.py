"""hnswlib: the graph everybody is measured against."""

from pathlib import Path

import hnswlib
import numpy as np

from .engine import GRAPH_CANDIDATES, GRAPH_LINKS, Candidates, Engine, Parameters

FILE = "index.hnsw"


class Hnswlib(Engine):
    """Its own space for L2; inner products for the rest, as cosine is given unit vectors."""

    dials = (Candidates("ef", 10, 4000),)

    def build(self, base: np.ndarray, metric: str, threads: int, folder: Path) -> None:
        del folder
        self.index = self.empty(metric, base.shape[1])
        self.index.init_index(
            len(base), M=GRAPH_LINKS, ef_construction=GRAPH_CANDIDATES, random_seed=1
        )
        self.index.add_items(base, num_threads=threads)

    def save(self, folder: Path) -> None:
        self.index.save_index(str(folder / FILE))

    def load(self, folder: Path, metric: str, dimension: int) -> None:
        self.index = self.empty(metric, dimension)
        self.index.load_index(str(folder / FILE))

    def set(self, parameters: Parameters) -> None:
        self.index.set_ef(parameters["ef"])

    def search(self, prepared: np.ndarray, k: int, threads: int) -> np.ndarray:
        return self.index.knn_query(prepared, k, num_threads=threads)[0]

    @staticmethod
    def empty(metric: str, dimension: int) -> hnswlib.Index:
        return hnswlib.Index("l2" if metric == "l2" else "ip", dimension)


def create() -> Engine:
    """The only kind there is."""
    return Hnswlib()
