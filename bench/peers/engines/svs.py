"""Scalable Vector Search: Intel's Vamana graph.

Its quantised forms (LVQ, LeanVec) end the process on processors of other makers, and are left out.
"""

from pathlib import Path

import numpy as np
import svs

from .engine import GRAPH_CANDIDATES, GRAPH_LINKS, Candidates, Engine, Parameters

TYPES = {"f32": np.float32, "f16": np.float16}


class Vamana(Engine):
    """Twice the links of the other graphs, which have as many on their lowest level."""

    dials = (Candidates("search_window_size", 10, 4000),)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def build(self, base: np.ndarray, metric: str, threads: int, folder: Path) -> None:
        del folder
        parameters = svs.VamanaBuildParameters(
            graph_max_degree=2 * GRAPH_LINKS,
            window_size=GRAPH_CANDIDATES,
            alpha=0.95 if metric == "dot" else 1.2,
        )
        rows = np.ascontiguousarray(base, dtype=TYPES[self.dtype])
        self.index = svs.Vamana.build(parameters, rows, self.distance(metric), num_threads=threads)

    def save(self, folder: Path) -> None:
        self.index.save(*(str(folder / part) for part in ("config", "graph", "rows")))

    def load(self, folder: Path, metric: str, dimension: int) -> None:
        del dimension
        self.index = svs.Vamana(
            str(folder / "config"),
            svs.GraphLoader(str(folder / "graph")),
            svs.VectorDataLoader(str(folder / "rows")),
            self.distance(metric),
            num_threads=1,
        )

    def set(self, parameters: Parameters) -> None:
        self.index.search_window_size = parameters["search_window_size"]

    def search(self, prepared: np.ndarray, k: int, threads: int) -> np.ndarray:
        if self.index.num_threads != threads:
            self.index.num_threads = threads
        return self.index.search(prepared, k)[0].astype(np.int64)

    @staticmethod
    def distance(metric: str) -> svs.DistanceType:
        # Unit vectors are ordered by L2 as by cosine.
        return svs.DistanceType.MIP if metric == "dot" else svs.DistanceType.L2


def create(dtype: str) -> Engine:
    """The type of numbers is one of `TYPES`."""
    return Vamana(dtype)
