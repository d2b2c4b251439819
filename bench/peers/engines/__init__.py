"""The libraries that are measured in this process, by the names that `--engines` takes."""

import importlib
from importlib import metadata

from .engine import Engine

#: Module and arguments of each engine. Modules are imported when the engine is made, so that one
#: library's memory and threads are not in another's process.
ENGINES: dict[str, tuple[str, dict[str, str]]] = {
    "hnswlib": ("hnswlib", {}),
    "faiss-hnsw": ("faiss", {"kind": "hnsw"}),
    "faiss-ivf": ("faiss", {"kind": "ivf"}),
    "faiss-ivfpqfs-refine": ("faiss", {"kind": "ivfpqfs-refine"}),
    "faiss-flat": ("faiss", {"kind": "flat"}),
    "usearch-f32": ("usearch", {"dtype": "f32"}),
    "usearch-f16": ("usearch", {"dtype": "f16"}),
    "usearch-i8": ("usearch", {"dtype": "i8"}),
    "qdrant-edge": ("qdrant", {"quantization": "none"}),
    "qdrant-edge-i8": ("qdrant", {"quantization": "i8"}),
    "svs-f32": ("svs", {"dtype": "f32"}),
    "svs-f16": ("svs", {"dtype": "f16"}),
}


#: The distribution that a module measures.
DISTRIBUTIONS = {
    "hnswlib": "hnswlib",
    "faiss": "faiss-cpu",
    "usearch": "usearch",
    "qdrant": "qdrant-edge-py",
    "svs": "scalable-vs",
}


def version(name: str) -> str:
    """The version of the library that the engine calls."""
    distribution = DISTRIBUTIONS[ENGINES[name][0]]
    return f"{distribution} {metadata.version(distribution)}"


def create(name: str) -> Engine:
    """The engine of this name, without an index yet."""
    module, arguments = ENGINES[name]
    return importlib.import_module(f".{module}", __package__).create(**arguments)


__all__ = ["ENGINES", "Engine", "create", "version"]
