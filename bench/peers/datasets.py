"""Data sets: rows, queries and the exact nearest rows of every query, as `.npy` files.

A set NAME is the files NAME_base.npy (f32, rows x dimension), NAME_query.npy (f32) and NAME_gt.npy
(i32, queries x 100, nearest first) in the data folder. The mixtures below are made when they are
missing, and so is the truth of any set.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: Neighbours in a truth file.
TRUTH = 100
#: Neighbours kept beyond those while distances are of single precision, to be ordered exactly.
SPARE = 28
#: Rows that are generated, or compared with all queries, at a time.
BLOCK = 50_000

METRICS = ("cosine", "dot", "l2")


class DatasetError(Exception):
    """A data set that cannot be used; the text says what to do."""


@dataclass(frozen=True)
class Mixture:
    """Overlapping clusters of uneven size and width in few dimensions, lifted to many.

    Neighbourhoods are of about `latent` dimensions, as those of learned embeddings are; uniform
    noise of the same dimension would be far harder than anything real.
    """

    rows: int
    queries: int
    dimension: int
    latent: int
    clusters: int
    width: float
    seed: int

    def write(self, base: Path, queries: Path) -> None:
        """Writes the rows and the queries, which are of the same mixture."""
        random = np.random.default_rng(self.seed)
        lift = random.standard_normal((self.latent, self.dimension), dtype=np.float32)
        lift /= np.float32(self.latent**0.5)
        centres = random.standard_normal((self.clusters, self.latent), dtype=np.float32)
        widths = (self.width * random.uniform(0.5, 1.5, self.clusters)).astype(np.float32)
        weights = random.pareto(2.0, self.clusters) + 0.2
        weights /= weights.sum()

        def draw(count: int) -> np.ndarray:
            which = random.choice(self.clusters, count, p=weights)
            inside = random.standard_normal((count, self.latent), dtype=np.float32)
            points = (centres[which] + widths[which, None] * inside) @ lift
            noise = random.standard_normal(points.shape, dtype=np.float32)
            return points + np.float32(0.1) * noise

        np.save(queries, draw(self.queries))
        shape = (self.rows, self.dimension)
        partial = base.with_suffix(".partial")
        out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, self.rows, BLOCK):
            out[start : start + BLOCK] = draw(min(BLOCK, self.rows - start))
        out.flush()
        partial.replace(base)


MADE = {
    "smoke": Mixture(20_000, 200, 64, 16, 100, 0.6, 3),
    "gmm1m": Mixture(1_000_000, 1_000, 128, 24, 2_000, 0.6, 1),
    "hard768": Mixture(200_000, 1_000, 768, 48, 1_000, 0.8, 2),
}


@dataclass(frozen=True)
class Dataset:
    """A data set on disk."""

    name: str
    metric: str
    folder: Path

    @property
    def base_path(self) -> Path:
        return self.folder / f"{self.name}_base.npy"

    @property
    def query_path(self) -> Path:
        return self.folder / f"{self.name}_query.npy"

    @property
    def truth_path(self) -> Path:
        return self.folder / f"{self.name}_gt.npy"

    def base(self) -> np.ndarray:
        """The rows, mapped: they are read where they are used."""
        return np.load(self.base_path, mmap_mode="r")

    def queries(self) -> np.ndarray:
        return np.load(self.query_path)

    def truth(self) -> np.ndarray:
        return np.load(self.truth_path)

    def fingerprint(self) -> str:
        """Tells one set from another of the same name."""
        digest = hashlib.sha256()
        digest.update(self.query_path.read_bytes())
        digest.update(self.truth_path.read_bytes())
        digest.update(str(self.base_path.stat().st_size).encode())
        return digest.hexdigest()[:16]


def prepare(name: str, folder: Path, metric: str | None) -> Dataset:
    """The set of this name, ready to use: made where it can be, checked, with its truth."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = Dataset(name, metric or "l2", folder)
    if not paths.base_path.is_file() or not paths.query_path.is_file():
        if name not in MADE:
            raise DatasetError(
                f"there is no data set {name!r}: put its rows into {paths.base_path} and its "
                f"queries into {paths.query_path}, or take one of {', '.join(MADE)}, which are made"
            )
        print(f"making {name}", flush=True)
        MADE[name].write(paths.base_path, paths.query_path)
        paths.truth_path.unlink(missing_ok=True)
    base, queries = paths.base(), paths.queries()
    check_shapes(paths, base, queries)
    unit = is_unit(base) and is_unit(queries)
    chosen = metric or ("cosine" if unit else "l2")
    if chosen == "cosine" and not unit:
        raise DatasetError(
            f"the vectors of {name!r} are not of unit length: normalise them, or choose "
            "`--metric l2` or `--metric dot`"
        )
    dataset = Dataset(name, chosen, folder)
    if not dataset.truth_path.is_file():
        print(f"finding the exact neighbours of {name}", flush=True)
        np.save(dataset.truth_path, exact(base, queries, chosen, min(TRUTH, len(base))))
    truth = dataset.truth()
    if len(truth) != len(queries) or truth.max() >= len(base):
        raise DatasetError(
            f"{dataset.truth_path} belongs to other data: delete it, and it is made again"
        )
    return dataset


def check_shapes(dataset: Dataset, base: np.ndarray, queries: np.ndarray) -> None:
    """Refuses files that are not two tables of f32 of one width."""
    for path, table in ((dataset.base_path, base), (dataset.query_path, queries)):
        if table.ndim != 2 or table.dtype != np.float32 or len(table) == 0:
            raise DatasetError(
                f"{path} has to be a table of float32, it is {table.dtype} of shape {table.shape}"
            )
    if base.shape[1] != queries.shape[1]:
        raise DatasetError(
            f"rows of {base.shape[1]} numbers and queries of {queries.shape[1]} do not go together"
        )


def is_unit(table: np.ndarray) -> bool:
    """Whether the vectors are of unit length, as far as some of them tell."""
    some = np.asarray(table[:: max(1, len(table) // 1000)])
    return bool(np.all(np.abs(np.linalg.norm(some, axis=1) - 1.0) < 1e-3))


def distances(rows: np.ndarray, query: np.ndarray, metric: str) -> np.ndarray:
    """Distances in double precision; nearer is smaller, whatever the metric."""
    rows, query = rows.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        return ((rows - query) ** 2).sum(axis=1)
    return -(rows @ query)


def exact(base: np.ndarray, queries: np.ndarray, metric: str, k: int) -> np.ndarray:
    """The k nearest rows of each query, nearest first, the lower row first among equals."""
    kept = min(k + SPARE, len(base))
    best_rows = np.empty((len(queries), 0), np.int64)
    best_scores = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(base), BLOCK):
        rows = np.asarray(base[start : start + BLOCK])
        scores = queries @ rows.T
        if metric == "l2":
            scores *= -2.0
            scores += (rows**2).sum(axis=1)
        else:
            scores *= -1.0
        near = nearest(scores, kept)
        best_rows = np.concatenate([best_rows, near + start], axis=1)
        best_scores = np.concatenate([best_scores, np.take_along_axis(scores, near, 1)], axis=1)
        near = nearest(best_scores, kept)
        best_rows = np.take_along_axis(best_rows, near, 1)
        best_scores = np.take_along_axis(best_scores, near, 1)
    out = np.empty((len(queries), k), np.int32)
    for query, rows, answer in zip(queries, best_rows, out, strict=True):
        order = np.lexsort((rows, distances(base[rows], query, metric)))
        answer[:] = rows[order[:k]]
    return out


def nearest(scores: np.ndarray, count: int) -> np.ndarray:
    """Columns of the smallest scores of each row, in no order."""
    if scores.shape[1] <= count:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(scores, count - 1, axis=1)[:, :count]
