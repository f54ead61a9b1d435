#!/usr/bin/env bash
# The two published sizes, 309,317 image and 582,391 layer documents of 300 dimensions, on synthetic
# vectors (seeded), with two ranks of one thread: time, useful GFLOP/s and their share of the
# multiply-add ceiling, and the most memory that all processes had together (shared pages once).
# About 3 to 4 and 10 to 13 minutes on two cores with nobody else; 0.4 and 0.7 GB of disk for each.
#
#   benches/published-sizes.sh [ROWS ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=target/bench-venv/bin/python
[ -x "$python" ] || { echo "first: make bench, or benches/run.sh cosine (it makes $python)" >&2; exit 1; }
[ -x target/release/stratigraph ] || { echo "first: cargo build --release" >&2; exit 1; }
mkdir -p target/bench
[ $# -gt 0 ] || set -- 309317 582391
PYTHONPATH=benches "$python" - "$@" <<'PYTHON'
import re
import shutil
import sys
from pathlib import Path

import numpy as np
from compare import ceiling, ranks, rate_of

work = Path("target/bench")
for rows in dict.fromkeys(map(int, sys.argv[1:])):
    path, results = work / f"synthetic-{rows}.npy", work / f"synthetic-{rows}"
    random = np.random.default_rng(rows)
    x = np.lib.format.open_memmap(path, "w+", np.float32, (rows, 300))
    centres = 0.8 * random.standard_normal((256, 300))
    for first in range(0, rows, 20_000):
        here = min(20_000, rows - first)
        part = random.standard_normal((here, 300)) + centres[random.integers(0, 256, here)]
        x[first : first + here] = part / np.linalg.norm(part, axis=1, keepdims=True)
    x.flush()
    del x
    shutil.rmtree(results, ignore_errors=True)
    before, _ = ceiling()
    run = ranks("--threads", "1", "cosine", path, "-o", results)
    most = max(before, ceiling()[0])
    rate, tiles = rate_of(run), re.search(r"tiles: ([\d.]+) s", run["output"])
    print(
        f"{rows} x 300: {run['seconds']:.1f} s in all, tiles {tiles[1] if tiles else '?'} s, {rate:.1f} useful GFLOP/s, "
        f"{100 * rate / most:.0f} % of {most:.1f}; memory {run['memory'] / 2**20:.0f} MiB, "
        f"of which vectors {rows * 1200 / 2**20:.0f} MiB",
        flush=True,
    )
    path.unlink()
    shutil.rmtree(results)
PYTHON
