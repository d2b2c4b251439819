"""qdrant-edge: the core of Qdrant in this process, as one optimised segment."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import qdrant_edge as qdrant

from .engine import GRAPH_CANDIDATES, GRAPH_LINKS, Candidates, Engine, Parameters

SHARD = "shard"
#: Points an upsert.
BATCH = 5_000
DISTANCES = {
    "cosine": qdrant.Distance.Cosine,
    "dot": qdrant.Distance.Dot,
    "l2": qdrant.Distance.Euclid,
}
#: Kilobytes: no segment is too large to be merged into one, none too small to be indexed.
SEGMENT_MAX = 1 << 30
INDEXED_FROM = 1
#: Threads of its own pool, through which every search goes.
SEARCH_POOL = os.cpu_count() or 1


class QdrantEdge(Engine):
    """Searches go one by one: its batches share one pass over the segments, and there is one.

    Threads are ours, each with its share of the queries; its own pool has one for each core, which
    lets them run beside each other and cannot split a search of the one segment.
    """

    dials = (Candidates("hnsw_ef", 10, 4000),)

    def __init__(self, quantization: str) -> None:
        self.quantization = quantization
        self.pools: dict[int, ThreadPoolExecutor] = {}
        if quantization == "i8":
            # The quantised rows lead, the full ones decide: as many as are asked for, or more.
            self.dials = tuple(
                Candidates("hnsw_ef", 10, 4000, {"oversampling": n}) for n in (1, 2, 4)
            )

    def build(self, base: np.ndarray, metric: str, threads: int, folder: Path) -> None:
        path = folder / SHARD
        path.mkdir()
        self.shard = qdrant.EdgeShard.create(str(path), self.config(metric, base.shape[1], threads))
        for start in range(0, len(base), BATCH):
            rows = base[start : start + BATCH].tolist()
            points = [qdrant.Point(start + at, row) for at, row in enumerate(rows)]
            self.shard.update(qdrant.UpdateOperation.upsert_points(points))
        self.shard.optimize()

    def config(self, metric: str, dimension: int, threads: int) -> qdrant.EdgeConfig:
        quantized = None
        if self.quantization == "i8":
            quantized = qdrant.ScalarQuantizationConfig(
                qdrant.ScalarType.Int8, quantile=0.9999, memory=qdrant.Memory.Pinned
            )
        graph = qdrant.HnswIndexConfig(
            m=GRAPH_LINKS,
            ef_construct=GRAPH_CANDIDATES,
            full_scan_threshold=1,
            max_indexing_threads=threads,
        )
        vectors = qdrant.EdgeVectorParams(
            size=dimension,
            distance=DISTANCES[metric],
            hnsw_config=graph,
            quantization_config=quantized,
        )
        optimizers = qdrant.EdgeOptimizersConfig(
            default_segment_number=1, max_segment_size=SEGMENT_MAX, indexing_threshold=INDEXED_FROM
        )
        return qdrant.EdgeConfig(
            vectors=vectors,
            optimizers=optimizers,
            max_search_threads=SEARCH_POOL,
            wal_enabled=False,
        )

    def save(self, folder: Path) -> None:
        del folder
        self.shard.flush()
        self.shard.close()

    def load(self, folder: Path, metric: str, dimension: int) -> None:
        config = self.config(metric, dimension, 1)
        self.shard = qdrant.EdgeShard.load(str(folder / SHARD), config)

    def set(self, parameters: Parameters) -> None:
        quantization = None
        if "oversampling" in parameters:
            quantization = qdrant.QuantizationSearchParams(
                rescore=True, oversampling=float(parameters["oversampling"])
            )
        self.parameters = qdrant.SearchParams(
            hnsw_ef=parameters["hnsw_ef"], quantization=quantization
        )

    def prepare(self, queries: np.ndarray, k: int) -> list[qdrant.QueryRequest]:
        return [
            qdrant.QueryRequest(limit=k, query=qdrant.Query.Nearest(query), params=self.parameters)
            for query in queries.tolist()
        ]

    def search(self, prepared: list[qdrant.QueryRequest], k: int, threads: int) -> np.ndarray:
        if threads == 1:
            return self.answers(prepared, k)
        pool = self.pools.setdefault(threads, ThreadPoolExecutor(threads))
        share = -(-len(prepared) // threads)
        parts = [prepared[start : start + share] for start in range(0, len(prepared), share)]
        return np.concatenate(list(pool.map(lambda part: self.answers(part, k), parts)))

    def answers(self, requests: list[qdrant.QueryRequest], k: int) -> np.ndarray:
        found = np.full((len(requests), k), -1, np.int64)
        for row, request in zip(found, requests, strict=True):
            ids = [point.id for point in self.shard.query(request)]
            row[: len(ids)] = ids
        return found


def create(quantization: str) -> Engine:
    """Quantisation is `none` or `i8`."""
    return QdrantEdge(quantization)
