"""What Stratigraph is measured against: the same work in Python, each in a process of its own.

    peers.py import DIRECTORY DATABASE    the study's way to its manifest table
    peers.py tokens DIRECTORY [TEXTS]     the study's way from histories to documents
    peers.py jaccard CORPUS.h5            all pairs of images with scipy's sparse product
    peers.py published TABLE.csv          the same for the sets of the published table
    peers.py embed TEXT OUTPUT SETTINGS   gensim's word2vec on one document a line; SETTINGS is JSON
    peers.py tar LAYER.tar.gz             names of a layer with tarfile
    peers.py neighbours OURS GENSIM...    how alike gensim finds the neighbours in word2vec files

Each prints one JSON object; `seconds` is the time of the work without Python's own start.
"""

import csv
import glob
import json
import os
import random
import re
import sqlite3
import sys
import time
from pathlib import Path

BINS = 10  # of the score's histogram, [0, 1]


def import_manifests(source, database):
    """One process, one pass: each file is parsed whole, each layer row is one INSERT, each file one commit."""
    begun = time.perf_counter()
    db = sqlite3.connect(database)
    columns = (
        "full_uri, uri, tag, layer_number, architecture, digest, os, size, schema_version, category, created_at"
    )
    db.execute(f"CREATE TABLE manifests (id INTEGER PRIMARY KEY AUTOINCREMENT, {columns})")
    rows = 0
    for directory, _, names in os.walk(source):
        if "manifests-config-layers.json" not in names:
            continue
        uri = os.path.relpath(directory, source)
        with open(os.path.join(directory, "manifests-config-layers.json"), encoding="utf-8") as file:
            crawled = json.load(file)
        for tag, manifest in crawled["manifests"].items():
            if "mediaType" not in manifest:
                continue
            if manifest["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json":
                continue
            if "layers" not in manifest or manifest["schemaVersion"] == 1:
                continue
            if tag not in crawled["configs"]:
                continue
            created = crawled["configs"][tag]["created"].split("T")[0] + " 00:00:00"
            for number, layer in enumerate(manifest["layers"]):
                platform = layer.get("platform") or {}
                row = (
                    f"{uri}:{tag}", uri, tag, number, platform.get("architecture") or "unknown", layer["digest"],
                    platform.get("os") or "unknown", layer["size"], str(manifest["schemaVersion"]), "unknown", created,
                )
                # The study writes the values into the statement's text, each row anew.
                values = ", ".join(map(literal, row))
                db.execute(f"INSERT INTO manifests ({columns}) VALUES ({values})")
                rows += 1
        db.commit()
    db.close()
    return {"seconds": time.perf_counter() - begun, "rows": rows}


def literal(value):
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


SEPARATORS = re.compile(r"""['";:=_\-\n\t#.*&]""")
BRACKETS = re.compile(r"[<>{}|()\[\]$/]")


def tokens(source, texts=None):
    """One process: each history entry is cut anew, each layer's line is all tokens so far, the lines are counted in
    a dictionary. The time is that of the tokens alone: the JSON is parsed before the clock starts. With `texts`, the
    lines are written as well."""
    crawled = []
    for path in sorted(glob.glob(os.path.join(source, "**", "manifests-config-layers.json"), recursive=True)):
        with open(path, encoding="utf-8") as file:
            configs = json.load(file)["configs"].values()
        crawled.append([config["history"] for config in configs if "history" in config])
    begun = time.perf_counter()
    names = ("layers", "images", "distinct")
    files = [open(os.path.join(texts, name + ".txt"), "w", encoding="utf-8") for name in names] if texts else []
    counts, layers, images = {}, 0, 0
    for histories in crawled:
        for history in histories:
            so_far = []
            for entry in history:
                if "created_by" not in entry:
                    continue
                text = BRACKETS.sub(" ", SEPARATORS.sub(" ", entry["created_by"]))
                words = [word for word in text.lower().split() if len(word) > 1]
                so_far += [word for word in words if len(word) != 64 and len(word) != 40]
                line = " ".join(so_far)
                layers += 1
                seen = counts.get(line, 0)
                counts[line] = seen + 1
                if files:
                    files[0].write(line + "\n")
                    if not seen:
                        files[2].write(line + "\n")
            line = " ".join(so_far)
            images += 1
            if files:
                files[1].write(line + "\n")
    for file in files:
        file.close()
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "layers": layers, "distinct": len(counts), "images": images}


def sets_of_corpus(path):
    """Each image's distinct digests as a CSR matrix of ones: images x digests."""
    import h5py
    import numpy as np

    with h5py.File(path) as file:
        offsets = file["manifests/layers"][:].astype(np.int64)
        digests = file["layers/digest"][:].astype(np.int64)
        kept = file["manifests/study"][:] == 0
    image = np.repeat(np.arange(len(kept)), np.diff(offsets))
    row_of = np.cumsum(kept) - 1
    mine = kept[image]
    # A manifest without a single layer is no image.
    return ones(row_of[image[mine]], digests[mine])


def sets_of_table(path):
    import numpy as np

    images, digests, rows, columns = {}, {}, [], []
    with open(path, encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            rows.append(images.setdefault(line["full_uri"], len(images)))
            columns.append(digests.setdefault(line["digest"], len(digests)))
    return ones(np.array(rows), np.array(columns))


def ones(rows, columns):
    import numpy as np
    from scipy import sparse

    pairs = np.unique(np.stack([rows, columns], axis=1), axis=0)
    _, row = np.unique(pairs[:, 0], return_inverse=True)
    _, column = np.unique(pairs[:, 1], return_inverse=True)
    return sparse.csr_matrix((np.ones(len(row), dtype=np.int32), (row, column)))


def histogram_of_scores(sets):
    """Scores of all pairs i < j from A @ A.T, in the bins of `numpy.histogram`."""
    import numpy as np

    n = sets.shape[0]
    sizes = np.diff(sets.indptr)
    shared = (sets @ sets.T).tocoo()
    upper = shared.row < shared.col
    both = shared.data[upper]
    score = both / (sizes[shared.row[upper]] + sizes[shared.col[upper]] - both)
    counts, _ = np.histogram(score, bins=BINS, range=(0.0, 1.0))
    counts[0] += n * (n - 1) // 2 - len(score)
    return n, len(score), counts.tolist()


def jaccard(load, path):
    begun = time.perf_counter()
    sets = load(path)
    loaded = time.perf_counter()
    images, overlapping, counts = histogram_of_scores(sets)
    ended = time.perf_counter()
    return {
        "seconds": ended - begun,
        "compute": ended - loaded,
        "images": images,
        "overlapping": overlapping,
        "histogram": counts,
    }


def cosine_numpy(path):
    """All ordered pairs: `X @ X.T` in blocks of rows, bins of 0.1 by `bincount`, in float32."""
    import numpy as np

    x = np.load(path)
    begun = time.perf_counter()
    counts = np.zeros(22, dtype=np.int64)
    for first in range(0, len(x), 1024):
        scores = x[first : first + 1024] @ x.T
        counts += np.bincount((scores * 10 + 11).astype(np.int32).ravel(), minlength=22)[:22]
    return {"seconds": time.perf_counter() - begun, "pairs": int(counts.sum())}


def cosine_study(path, rows):
    """The study's way: sklearn's similarities of a chunk of rows, then `between` for each row and
    range, over the first rows of the matrix."""
    import numpy as np
    import pandas
    from sklearn.metrics.pairwise import cosine_similarity

    x = np.load(path)[: int(rows)]
    begun = time.perf_counter()
    edges = [i / 10 for i in range(-5, 11)]
    counts = dict.fromkeys(zip(edges, edges[1:]), 0)
    for first in range(0, len(x), 1000):
        frame = pandas.DataFrame(cosine_similarity(x[first : first + 1000], x))
        for _, row in frame.iterrows():
            for low, high in counts:
                counts[low, high] += int(row.between(low, high).sum())
    return {"seconds": time.perf_counter() - begun, "pairs": sum(counts.values())}
def similar(archive):
    """`Database.similar` of container-guts as it is, on sets halfway between two bases."""
    import contextlib
    import io
    import tarfile
    import tempfile

    import zstandard
    from container_guts.main.database import Database

    with tempfile.TemporaryDirectory() as directory:
        with open(archive, "rb") as packed, zstandard.ZstdDecompressor().stream_reader(packed) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                # Python 3.11 has the argument from 3.11.4 on.
                tar.extractall(directory, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        database = Database(directory)
        bases = [next(iter(data.values()))["fs"] for data in database.iter_containers()]
        sets = [sorted(set(a) | set(b[::2])) for a, b in zip(bases[::9], bases[4::9])]
        begun = time.perf_counter()
        for paths in sets:
            with contextlib.redirect_stdout(io.StringIO()):
                database.similar({"fs": paths, "paths": {}})
        return {"seconds": time.perf_counter() - begun, "sets": len(sets)}


def embed(text, output, settings):
    """Skip-gram, or PV-DBOW with words, document by document; the time is that of the training alone.
    Words are those that have a vector, as often as they occur."""
    from gensim.models import Doc2Vec, Word2Vec
    from gensim.models.doc2vec import TaggedLineDocument
    from gensim.models.word2vec import LineSentence

    options = json.loads(settings)
    epochs = options.pop("epochs")
    options["hs"] = int(options["negative"] == 0)
    if options.pop("documents", False):
        # In an order of its own, as our documents are; else two seeds agree because of their common order.
        lines = Path(text).read_text().splitlines(keepends=True)
        random.Random(options["seed"]).shuffle(lines)
        shuffled = Path(f"{output}.txt")
        shuffled.write_text("".join(lines))
        source = {"corpus_iterable": TaggedLineDocument(str(shuffled))}
        model = Doc2Vec(dm=0, dbow_words=1, epochs=epochs, **options)
    else:
        source = {"corpus_iterable": LineSentence(text)}
        model = Word2Vec(sg=1, epochs=epochs, **options)
    model.build_vocab(**source)
    begun = time.perf_counter()
    model.train(**source, total_examples=model.corpus_count, total_words=model.corpus_total_words, epochs=epochs)
    seconds = time.perf_counter() - begun
    vectors = model.wv
    vectors.save_word2vec_format(output, binary=True)
    words = epochs * sum(int(vectors.get_vecattr(word, "count")) for word in vectors.index_to_key)
    return {"seconds": seconds, "words": words, "vocabulary": len(vectors)}


FREQUENT, NEAREST = 500, 10


def neighbours(ours, *others):
    """Share of the 10 nearest words of the 500 most frequent ones that two files have in common, for
    each pair of files; and how far the text, the binary file (both read by gensim) and the HDF5 file
    of ours are apart. `ours` is the name of these three without its ending."""
    import h5py
    import numpy as np
    from gensim.models import KeyedVectors

    text = KeyedVectors.load_word2vec_format(ours + ".txt")
    files = [KeyedVectors.load_word2vec_format(path, binary=True) for path in (ours + ".bin", *others)]
    with h5py.File(ours + ".h5") as file:
        stored = file["words/vectors"][:]
    if text.index_to_key != files[0].index_to_key:
        sys.exit("bench: the words of the text and the binary file differ")
    apart = max(float(np.abs(text.vectors - stored).max()), float(np.abs(files[0].vectors - stored).max()))
    known = set(files[0].index_to_key).intersection(*(file.index_to_key for file in files[1:]))
    frequent = [word for word in files[0].index_to_key if word in known][:FREQUENT]
    nearest = [[{near for near, _ in file.most_similar(word, topn=NEAREST)} for word in frequent] for file in files]

    def overlap(one, other):
        return sum(len(a & b) for a, b in zip(one, other)) / (NEAREST * len(frequent))

    pairs = {f"{i} {j}": overlap(nearest[i], nearest[j]) for i in range(len(files)) for j in range(i)}
    return {"seconds": 0.0, "apart": apart, "words": len(frequent), "overlap": pairs}


def tar(archive):
    """The members of a compressed layer, read as a stream; nothing is hashed."""
    import tarfile

    begun = time.perf_counter()
    with tarfile.open(archive, mode="r|gz") as members:
        count = sum(1 for _ in members)
    return {"seconds": time.perf_counter() - begun, "members": count}


def main():
    what, *arguments = sys.argv[1:]
    work = {
        "import": import_manifests,
        "tokens": tokens,
        "jaccard": lambda path: jaccard(sets_of_corpus, path),
        "published": lambda path: jaccard(sets_of_table, path),
        "similar": similar,
    }
    work |= {"cosine-numpy": cosine_numpy, "cosine-study": cosine_study}
    work |= {"embed": embed, "neighbours": neighbours, "tar": tar}
    print(json.dumps(work[what](*arguments)))


if __name__ == "__main__":
    main()
