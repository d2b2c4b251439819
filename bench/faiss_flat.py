"""Single queries of faiss's flat index, one when it is asked for: see `src/bin/exact.rs`, `src/exact.rs`.

    pip install faiss-cpu numpy
    python bench/faiss_flat.py DATA.npy QUERIES.npy K [l2]

Prints a line about faiss, then answers each line `THREADS QUERY` with the seconds of one search,
the processor time that it took and the rows found. Without `l2` vectors are of unit length, so that the inner product is
the cosine.
"""

import sys
import time

import faiss
import numpy

data, queries, k = numpy.load(sys.argv[1]), numpy.load(sys.argv[2]), int(sys.argv[3])
kind = faiss.IndexFlatL2 if "l2" in sys.argv[4:] else faiss.IndexFlatIP
index = kind(data.shape[1])
index.add(data)
del data
print(f"faiss {faiss.__version__}, {kind.__name__}, {faiss.get_compile_options().strip()}", flush=True)
for line in sys.stdin:
    threads, query = map(int, line.split())
    faiss.omp_set_num_threads(threads)
    vector = queries[query : query + 1]
    start, used = time.perf_counter(), time.process_time()
    _, rows = index.search(vector, k)
    used = time.process_time() - used
    seconds = time.perf_counter() - start
    print(seconds, used, *rows[0], flush=True)
