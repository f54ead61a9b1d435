"""Compares a matrix of `stratigraph cosine --matrix`, read by h5py, with NumPy in float64.

python3 matrix_check.py VECTORS.npy RESULTS f32|u8
Exit code 77: h5py or NumPy is missing.
"""

import os
import sys

try:
    import h5py
    import numpy as np
except ImportError as missing:
    print(missing)
    sys.exit(77)

vectors, results, cell = sys.argv[1:]
x = np.load(vectors).astype(np.float64)
with h5py.File(os.path.join(results, "cosine.h5")) as file:
    x = x[file["groups/representative"][:]]
with h5py.File(os.path.join(results, "cosine-matrix.h5")) as file:
    scores, rows = file["scores"], file["rows"][:]
    assert scores.is_virtual, "no virtual master"
    shards = {source.file_name for source in scores.virtual_sources()}
    # Names in the master are relative to it, so that the directory can be moved.
    assert shards and not any(os.path.isabs(name) for name in shards), shards
    assert scores.shape == (len(rows), len(x))
    found = scores[:]
    some = scores[len(rows) // 2, 5:17]

expected = np.zeros(found.shape)
for k in range(x.shape[1]):  # index order
    expected += np.outer(x[rows, k], x[:, k])
if cell == "f32":
    assert found.dtype == np.float32 and (found == expected.astype(np.float32)).all()
else:
    scaled = 127.0 * expected.clip(-1.0, 1.0)
    rounded = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    assert found.dtype == np.uint8 and (found == 128.0 + rounded).all()
assert (some == found[len(rows) // 2, 5:17]).all()
print("the same")
