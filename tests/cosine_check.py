"""Compares results of `stratigraph cosine` with NumPy in float64.

python3 cosine_check.py VECTORS.npy RESULTS   (reads RESULTS.h5 and RESULTS.json)
Exit code 77: h5py or NumPy is missing.
"""

import json
import sys

try:
    import h5py
    import numpy as np
except ImportError as missing:
    print(missing)
    sys.exit(77)

x = np.load(sys.argv[1]).astype(np.float64)
with open(sys.argv[2] + ".json") as file:
    summary = json.load(file)
distinct, group = np.unique(x, axis=0, return_inverse=True)
assert summary["distinct_vectors"] == len(distinct) < len(x)
with h5py.File(sys.argv[2] + ".h5") as file:
    representative = file["groups/representative"][:]
    weights = file["groups/weights"][:, 1]
    neighbours, scores = file["neighbours/index"][:], file["neighbours/score"][:]
    pairs = np.stack([file["pairs/first"][:], file["pairs/second"][:]], axis=1)
    assert (x[representative][file["vectors/group"][:]] == x).all()
    assert file["pairs/first"].dtype == "u4" and file["pairs/score"].dtype == "f4"

rows = x[representative]
square = np.zeros((len(rows), len(rows)))
for k in range(rows.shape[1]):  # index order
    square += np.outer(rows[:, k], rows[:, k])
upper = np.triu_indices(len(rows), 1)
score = square[upper]
product = (weights[:, None] * weights[None, :])[upper].astype(np.int64)
inside = int((weights * (weights - 1) // 2).sum())

for measures, weight, ones in [
    (summary["measures"][0], np.ones_like(product), 0),
    (summary["measures"][1], product, inside),
]:
    total = int(weight.sum()) + ones
    assert measures["pairs"] == total, (measures["pairs"], total)
    for histogram in measures["histograms"]:
        edges = np.array(histogram["edges"])
        counts = np.histogram(score, bins=edges, weights=weight)[0].astype(np.int64)
        counts[-1] += ones  # the last bin includes 1
        assert (counts == histogram["counts"]).all(), (counts, histogram["counts"])
        assert total == sum(histogram["counts"]) + histogram["underflow"] + histogram["overflow"]
    mean = (float((score * weight).sum()) + ones) / total
    std = np.sqrt((float((score**2 * weight).sum()) + ones) / total - mean**2)
    assert abs(measures["mean"] - mean) < 1e-13 and abs(measures["std"] - std) < 1e-12
    assert measures["min"] == score.min()

np.fill_diagonal(square, -np.inf)
order = np.lexsort((np.broadcast_to(np.arange(len(rows)), square.shape), -square), axis=1)[:, :5]
assert (order == neighbours).all() and (np.take_along_axis(square, order, 1) == scores).all()
assert (np.argwhere(np.triu(square >= 0.5, 1)) == pairs).all()

edges = summary["measures"][0]["as_published"]["edges"]
whole = np.array([r @ r for r in rows])
for k in range(len(rows)):
    square[k, k] = sum(float(v) * float(v) for v in rows[k])
counts = [((square >= a) & (square <= b)).sum() / 2 for a, b in zip(edges, edges[1:])]
assert counts == summary["measures"][0]["as_published"]["counts"]
print("the same")
