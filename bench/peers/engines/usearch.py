"""usearch: a graph over numbers of 32, 16 or 8 bits."""

import json
from pathlib import Path

import numpy as np
from usearch.index import Index

from .engine import GRAPH_CANDIDATES, GRAPH_LINKS, Candidates, Engine, Parameters

FILE = "index.usearch"
SCALE_FILE = "scale.json"
#: Rows looked at to find the scale of 8-bit numbers, and the share of numbers that it lets in.
SCALE_ROWS = 20_000
SCALE_SHARE = 0.9999


class Usearch(Engine):
    """Numbers of 8 bits are made here, by one factor for the whole set.

    usearch's own conversion to them normalises every vector, which makes L2 meaningless.
    """

    dials = (Candidates("expansion_search", 10, 4000),)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.scale = 1.0

    def build(self, base: np.ndarray, metric: str, threads: int, folder: Path) -> None:
        del folder
        if self.dtype == "i8":
            step = max(1, len(base) // SCALE_ROWS)
            self.scale = float(127 / np.quantile(np.abs(base[::step]), SCALE_SHARE))
        self.index = self.empty(metric, base.shape[1])
        self.index.add(np.arange(len(base)), self.converted(np.asarray(base)), threads=threads)

    def save(self, folder: Path) -> None:
        self.index.save(str(folder / FILE))
        (folder / SCALE_FILE).write_text(json.dumps(self.scale))

    def load(self, folder: Path, metric: str, dimension: int) -> None:
        self.scale = json.loads((folder / SCALE_FILE).read_text())
        self.index = self.empty(metric, dimension)
        self.index.load(str(folder / FILE))

    def set(self, parameters: Parameters) -> None:
        self.index.expansion_search = parameters["expansion_search"]

    def prepare(self, queries: np.ndarray, k: int) -> np.ndarray:
        del k
        return self.converted(queries)

    def search(self, prepared: np.ndarray, k: int, threads: int) -> np.ndarray:
        keys = np.atleast_2d(self.index.search(prepared, k, threads=threads).keys)
        return keys.astype(np.int64)

    def converted(self, vectors: np.ndarray) -> np.ndarray:
        if self.dtype != "i8":
            return vectors
        return np.clip(np.rint(vectors * np.float32(self.scale)), -127, 127).astype(np.int8)

    def empty(self, metric: str, dimension: int) -> Index:
        # Rounded to 8 bits unit vectors are not of unit length any more, and inner products would
        # prefer the longer ones.
        by_product = metric == "dot" or (metric == "cosine" and self.dtype != "i8")
        return Index(
            ndim=dimension,
            metric="ip" if by_product else "l2sq",
            dtype=self.dtype,
            connectivity=GRAPH_LINKS,
            expansion_add=GRAPH_CANDIDATES,
        )


def create(dtype: str) -> Engine:
    """The type of numbers is one of usearch's: `f32`, `f16` or `i8`."""
    return Usearch(dtype)
