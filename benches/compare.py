"""Measures Stratigraph on two ranks against its peers and its limits, and prints the table.

Run it through `make bench` (benches/run.sh makes the virtual environment). Where a row says nothing
else, ours is the time of the whole command, its start included, and the peers' time is that of their
work alone. The import and all pairs are compared by the work on both sides, each by its own clock
(all pairs: from the sets in memory to the results; documents: from the histories in memory to the distinct
documents with their counts): starting Python, or mpirun and MPI, says nothing
about either; whole commands stand below. Each side
works alone on the machine, in the same run. Memory is the highest sum, over all processes
of a command, of their proportional set sizes, sampled from /proc: pages that ranks share count once.
"""

import functools
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

RANKS = 2
REPEATS = 3
PROGRAM = "target/release/stratigraph"
WORK = Path("target/bench")
PEERS = Path(__file__).with_name("peers.py")
GIB = 2**30
SAMPLE_SECONDS = 0.02


def main():
    wanted = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in wanted if name not in BENCHES]
    if unknown:
        sys.exit(f"bench: unknown: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    WORK.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in wanted:
        say(f"{name} ...")
        rows += BENCHES[name]()
    header = ("what", "Stratigraph", "peer", "result", "goal", "")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    print(f"\n{RANKS} ranks, {os.cpu_count()} cores, median of {REPEATS}")
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    if any(row[-1] == "MISSED" for row in rows):
        sys.exit(1)


def bench_import():
    shared = shared_data()
    if shared is None:
        return [skipped("import of the dev corpus", "no ../shared")]
    source = unpacked(shared)
    warm(source)
    ours = [ranks("import", source, "-o", fresh("dev.h5")) for _ in range(REPEATS)]
    peer = [run_peer("import", source, fresh("dev.sqlite")) for _ in range(REPEATS)]
    mine, its = work_of(ours), median(peer, "seconds")
    memory = max(run["memory"] for run in ours)
    return [
        ratio("import of the dev corpus", mine, its, "Python json + sqlite3", 10),
        ratio("  whole command, starts included", median(ours, "seconds"), median(peer, "whole"), "", None),
        limit("  memory of all ranks", memory / GIB, max(r["memory"] for r in peer) / GIB, "GiB", 1),
    ]


def bench_tokens():
    shared = shared_data()
    if shared is None:
        return [skipped("histories of the dev corpus into documents", "no ../shared")]
    source, corpus = unpacked(shared), WORK / "dev.h5"
    if not corpus.exists():
        ranks("import", source, "-o", corpus)
    summary = WORK / "dev-tokens.json"
    arguments = ["tokenize", corpus, "-o", WORK / "dev-documents.h5", "--json", summary]
    ours = [threads(*arguments) for _ in range(REPEATS)]
    peer = run_peer("tokens", source)
    found = json.loads(summary.read_text())
    for name, key in (("layer_documents", "layers"), ("distinct_layer_documents", "distinct"), ("image_documents", "images")):
        if found[name] != peer[key]:
            sys.exit(f"bench: {name} differ: ours {found[name]}, Python {peer[key]}")
    # In memory, so that the disk is not what is measured.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as texts:
        written = threads(*arguments, "--text", texts)
    with tempfile.TemporaryDirectory(dir=memory) as texts:
        peer_written = run_peer("tokens", source, texts)
    name = f"tokens of {found['layer_documents']} layers, histories to documents"
    whole = "Python re + dict, JSON in memory"
    return [
        # Both begin with the histories in memory and end with each distinct document and its count.
        ratio(name, compute_of(ours), peer["seconds"], "Python re + dict", 30),
        ratio("  whole command: file to file, practices counted", median(ours, "seconds"), peer["seconds"], whole, None),
        ratio("  and all text corpora", written["seconds"], peer_written["seconds"], "Python re + dict", 1),
    ]


def bench_jaccard():
    shared = shared_data()
    if shared is None:
        return [skipped("Jaccard, all dev images", "no ../shared")]
    corpus = WORK / "dev.h5"
    if not corpus.exists():
        ranks("import", shared / "data/registry-corpus-dev.tar.zst", "-o", corpus)
    # In turns: the speed of a machine drifts. Memory is watched in runs of its own, for the watch takes a
    # tenth of the cores, both of which the ranks use.
    options = ("--top-k", "10", "--min", "0.5")
    ours, peer = [], []
    for _ in range(REPEATS):
        ours.append(ranks("jaccard", corpus, "-o", fresh("dev"), *options, watched=False))
        peer.append(run_peer("jaccard", corpus, watched=False))
    held = ranks("jaccard", corpus, "-o", fresh("dev"), *options)["memory"]
    peer_held = run_peer("jaccard", corpus)["memory"]
    same_counts(WORK / "dev/jaccard.h5", peer[0])
    name = f"Jaccard, {peer[0]['images']} dev images, top 10, pairs over 0.5"
    mine, its = compute_of(ours), median(peer, "compute")
    return [
        ratio(name, mine, its, "scipy A @ A.T + histogram", 20),
        ratio("  whole command, starts included", median(ours, "seconds"), median(peer, "seconds"), "", None),
        limit("  memory of all ranks", held / GIB, peer_held / GIB, "GiB", None),
    ]


def bench_synthetic():
    corpus = WORK / "full.h5"
    if not corpus.exists():
        ranks("synth", "-o", corpus)
    run = ranks("jaccard", corpus, "-o", fresh("full"), "--min", "0.5", "--top-k", "10")
    name = "Jaccard, synthetic corpus of the study's size"
    return [
        limit(name, run["seconds"], None, "s", 30),
        limit("  memory of all ranks", run["memory"] / GIB, None, "GiB", 4),
    ]


def bench_published():
    shared = shared_data()
    if shared is None:
        return [skipped("Jaccard, published table", "no ../shared")]
    table = shared / "data/published/full_uri_subset.csv"
    runs = [ranks("jaccard", table, "-o", fresh("published"), "--matrix") for _ in range(REPEATS)]
    peer = run_peer("published", table)
    same_counts(WORK / "published/jaccard.h5", peer)
    compute = compute_of(runs) * 1e3
    return [limit("Jaccard, published table, compute", compute, peer["compute"] * 1e3, "ms", 50)]


def work_of(runs):
    """Seconds from the start of the work to its end, as the program measures them."""
    found = [re.search(r"^time: ([\d.]+) (s|ms) ", run["output"], re.MULTILINE) for run in runs]
    if not all(found):
        sys.exit(f"bench: no line 'time: N s' in:\n{runs[0]['output']}")
    return statistics.median(float(match[1]) / (1e3 if match[2] == "ms" else 1) for match in found)


def compute_of(runs):
    """Seconds of the work alone, from the input in memory to the results in memory, as the program
    measures them; the peer's clock runs over the same (with all pairs, it lists no neighbours and no
    pairs)."""
    found = [re.search(r"compute: ([\d.]+) ms", run["output"]) for run in runs]
    if not all(found):
        sys.exit(f"bench: no line 'compute: N ms' in:\n{runs[0]['output']}")
    return statistics.median(float(match[1]) for match in found) / 1e3


def same_counts(results, peer):
    """Both sides must have counted the same pairs into the same bins."""
    expected = [sum(peer["histogram"]), *peer["histogram"]]
    found = histogram_of(results)
    if found != expected:
        sys.exit(f"bench: the counts differ: ours {found}, scipy {expected}")


COSINE_ROWS, STUDY_ROWS, TURNS = 32768, 4096, 7
TENTHS = "--edges=" + ",".join(str(i / 10) for i in range(-5, 11))


def bench_cosine():
    """Synthetic vectors of 300 dimensions in 64 loose clusters, on two ranks of one thread."""
    import numpy as np

    path = WORK / "vectors.npy"
    if not path.exists():
        random = np.random.default_rng(7)
        x = random.standard_normal((COSINE_ROWS, 300)) + 0.8 * random.standard_normal((64, 300))[
            random.integers(0, 64, COSINE_ROWS)
        ]
        np.save(path, (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32))

    # Programs of other machines on the same processor take from caches and queues, and never give. So the best
    # run is set beside the ceiling's best stretch; and, because a run is longer than a stretch, each run beside
    # all of the ceiling's just before and just after it.
    kinds = {"15 bins": [TENTHS], "200 bins": [], "all": [TENTHS, "--top-k", "50", "--min", "0.9"]}
    runs, beside, ceilings = {kind: [] for kind in kinds}, {kind: [] for kind in kinds}, [ceiling()]
    for _ in range(TURNS):
        for kind, options in kinds.items():
            runs[kind].append(
                ranks("--threads", "1", "cosine", path, "-o", fresh("cosine"), *options, watched=False)
            )
            ceilings.append(ceiling())
            around = statistics.mean(whole for _, whole in ceilings[-2:])
            beside[kind].append(rate_of(runs[kind][-1]) / around)
    most = max(best for best, _ in ceilings)
    rate, fine_rate, _ = (max(map(rate_of, runs[kind])) for kind in kinds)
    ours, fine, _ = (median(runs[kind], "seconds") for kind in kinds)
    best, _, all_wanted = (min(run["seconds"] for run in runs[kind]) for kind in kinds)
    in_turns = [more["seconds"] / run["seconds"] for run, more in zip(runs["15 bins"], runs["all"])]
    numpy = run_peer("cosine-numpy", path, watched=False)
    study = run_peer("cosine-study", path, STUDY_ROWS, watched=False)
    scaled = study["seconds"] * (COSINE_ROWS / STUDY_ROWS) ** 2
    name = f"cosine, {COSINE_ROWS} vectors of 300, 15 bins"
    return [
        ratio(name, ours, numpy["seconds"], "numpy X @ X.T + bincount", 3),
        ratio("  the same", ours, scaled, f"the study's code, {STUDY_ROWS} rows scaled", 150),
        of_ceiling(f"  tiles, best of {TURNS}: useful f32 rate, of the multiply-add ceiling", rate, most, 88),
        of_ceiling("  with 200 bins more", fine_rate, most, 75),
        turns("  each run beside the ceiling before and after it, median of the shares", beside["15 bins"]),
        turns("  with 200 bins more", beside["200 bins"]),
        ratio("  with 200 bins more", fine, ours, "15 bins", None),
        limit("  with top 50 and pairs over 0.9, to 15 bins alone", all_wanted / best, None, "x", 1.3),
        turns("  the same, each run to the one of its turn", in_turns),
    ]


@functools.cache
def ceiling_program():
    program = WORK / "ceiling"
    source = Path(__file__).with_name("ceiling.c")
    subprocess.run(["cc", "-O2", "-march=native", "-o", program, source], check=True)
    return str(program)


def ceiling():
    """GFLOP/s of f32 multiply-adds in registers, on as many cores as there are ranks: in the best stretch, and
    over all."""
    best, whole = map(float, measured([ceiling_program(), str(RANKS)], watched=False)["output"].split())
    return best, whole


def rate_of(run):
    """Useful GFLOP/s of the tiles (2d operations a pair), as the program reports it."""
    found = re.search(r"([\d.]+) useful GFLOP/s", run["output"])
    if not found:
        sys.exit(f"bench: no rate in:\n{run['output']}")
    return float(found[1])


def of_ceiling(what, rate, ceiling, goal):
    share = f"{100 * rate / ceiling:.0f} %"
    shown = (what, f"{rate:.1f} GFLOP/s", f"{ceiling:.1f} GFLOP/s", share)
    if goal is None:
        return (*shown, "", "")
    return (*shown, f">= {goal} %", "ok" if 100 * rate / ceiling >= goal else "MISSED")


def turns(what, shares):
    percent = sorted(100 * share for share in shares)
    shown = f"{statistics.median(percent):.0f} %"
    return (what, f"{percent[0]:.0f} to {percent[-1]:.0f} %", "", shown, "", "")


EMBED_SETTINGS = {
    # Preset, dimensions, window, negatives (0: Huffman codes), epochs, sample: those of the default, of the
    # study's script, and of Top2Vec.
    "300 dimensions, window 15, 5 negatives, 1 epoch": ("word2vec", 300, 15, 5, 1, 1e-3),
    "128 dimensions, window 2, 4 negatives, 2 epochs": ("tensorflow", 128, 2, 4, 2, 1e-3),
    "PV-DBOW with words, 300 dimensions, window 15, Huffman codes, 1 epoch": ("top2vec", 300, 15, 0, 1, 1e-5),
}


def bench_embed():
    shared = shared_data()
    if shared is None:
        return [skipped("words to vectors, dev images", "no ../shared")]
    documents, texts = WORK / "dev-documents.h5", WORK / "dev-texts"
    text = texts / "dockerfile-image-corpus.txt"
    if not (documents.exists() and text.exists()):
        ranks("import", shared / "data/registry-corpus-dev.tar.zst", "-o", WORK / "dev.h5")
        texts.mkdir(exist_ok=True)
        threads("tokenize", WORK / "dev.h5", "-o", documents, "--text", texts)
    # Each distinct image document once: gensim, three times a setting, takes minutes even so.
    with open(text, "rb") as lines:
        distinct = b"".join(dict.fromkeys(lines))
    text = WORK / "dev-distinct-images.txt"
    text.write_bytes(distinct)
    rows = []
    for name, settings in EMBED_SETTINGS.items():
        rows += embed_row(documents, text, name, *settings)
    return rows + document_pairs(WORK / "embed-word2vec.h5")


def document_pairs(vectors):
    """All pairs of the dev corpus's layer documents by the vectors that were just made: real vectors, of which
    some are equal, and whose principal axes the filter can use. The rate counts every pair of documents at its
    full 2d operations, over the time of the whole command; the faster of two runs."""
    import h5py
    import numpy as np

    with h5py.File(vectors) as file:
        values = file["documents/vectors"][:]
    matrix, (n, dims) = WORK / "document-vectors.npy", values.shape
    np.save(matrix, values)
    ceilings, runs = [ceiling()], {"plain": [], "weighted": [], "fine": []}
    for _ in range(2):
        for kind, file, options in [("plain", matrix, [TENTHS]), ("weighted", vectors, [TENTHS]), ("fine", vectors, [])]:
            run = ranks("--threads", "1", "cosine", file, "-o", fresh("documents"), *options, watched=False)
            runs[kind].append(run["seconds"])
            ceilings.append(ceiling())
    most = max(best for best, _ in ceilings)
    plain, weighted = (n * (n - 1) * dims / min(runs[kind]) / 1e9 for kind in ("plain", "weighted"))
    return [
        of_ceiling(f"all pairs of its {n} layer documents, 15 bins: whole command, of the ceiling", plain, most, 200),
        of_ceiling("  weighted by documents, layers and images", weighted, most, None),
        limit("  and with 200 bins more, whole command", min(runs["fine"]), None, "s", 90),
    ]


def embed_row(documents, text, name, preset, dims, window, negatives, epochs, sample):
    """The same settings and documents on both sides, on as many threads. gensim runs with two seeds,
    for the overlap that two runs of one program have; the speed of both programs is that of the faster of
    two runs. It reads document by document: on two threads `corpus_file` was no faster (here, with both
    settings), and it lets the learning rate fall only a part of the way, which gives other neighbours."""
    ours = WORK / f"embed-{preset}"
    options = {
        "dims": dims, "window": window, "negatives": negatives, "epochs": epochs, "min-count": 50,
        "sample": sample, "alpha": 0.025, "min-alpha": 0.0001, "shards": RANKS, "train": "distinct-images",
        "max-vocabulary": 0,
    }
    arguments = [f"--{key}={value}" for key, value in options.items()]
    arguments.append(f"--preset={preset}")
    files = [f"{ours}.h5", "--word2vec-text", f"{ours}.txt", "--word2vec-binary", f"{ours}.bin"]
    speeds = []
    for _ in range(2):
        for made in (f"{ours}.h5", f"{ours}.h5.checkpoint"):
            Path(made).unlink(missing_ok=True)
        run = threads("embed", documents, "-o", *files, *arguments, RAYON_NUM_THREADS=RANKS)
        speeds.append(int(re.sub(r"\D", "", re.search("trained: (.+) words a second", run["output"])[1])))
    rate = max(speeds)
    settings = {
        "vector_size": dims, "window": window, "negative": negatives, "epochs": epochs, "min_count": 50,
        "sample": sample, "alpha": 0.025, "min_alpha": 0.0001, "workers": RANKS, "documents": preset == "top2vec",
    }
    peers = [WORK / f"gensim-{preset}-{seed}.bin" for seed in (1, 2)]
    runs = [
        run_peer("embed", text, file, json.dumps({**settings, "seed": seed}))
        for seed, file in enumerate(peers, 1)
    ]
    its = max(run["words"] / run["seconds"] for run in runs)
    found = run_peer("neighbours", ours, *peers)
    if found["apart"] > 1e-6:
        sys.exit(f"bench: gensim reads other vectors from our exports: {found['apart']} apart")
    overlap = found["overlap"]
    mine, theirs = (overlap["1 0"] + overlap["2 0"]) / 2, overlap["2 1"]
    return [
        rates(f"words to vectors: {name}", rate, its, "gensim", 1.5),
        share("  10 nearest of 500 words shared with gensim", mine, theirs, "gensim's two seeds", 0.9),
    ]


def bench_classify():
    shared = shared_data()
    if shared is None:
        return [skipped("path sets against 46 bases", "no ../shared")]
    guts, bases, count = shared / "data/guts.tar.zst", WORK / "bases.h5", 1_000_000
    threads("bases", guts, "-o", bases)
    ours = threads("accuracy", bases, "--speed", count, watched=False)
    found = re.search(r"bases: ([\d.]+) s", ours["output"])
    if not found:
        sys.exit(f"bench: no time in:\n{ours['output']}")
    peer = run_peer("similar", guts)
    mine = float(found[1])
    return [
        limit("1 000 000 path sets against 46 bases, all scores", mine, None, "s", 60),
        ratio("  1 000 sets", mine / 1000, peer["seconds"] / peer["sets"] * 1000, "container-guts", 1000),
    ]


def bench_rootfs():
    import rootfs

    return rootfs.rows()


BENCHES = {
    "rootfs": bench_rootfs,
    "classify": bench_classify,
    "import": bench_import,
    "tokens": bench_tokens,
    "jaccard": bench_jaccard,
    "synthetic": bench_synthetic,
    "published": bench_published,
    "cosine": bench_cosine,
    "embed": bench_embed,
}


def ratio(what, ours, peer, peer_name, goal):
    factor = peer / ours
    verdict = "" if goal is None else "ok" if factor >= goal else "MISSED"
    its = f"{peer:.2f} s ({peer_name})" if peer_name else f"{peer:.2f} s"
    return (what, f"{ours:.3f} s", its, f"{factor:.1f}x", "" if goal is None else f">= {goal}x", verdict)


def rates(what, ours, peer, peer_name, goal):
    factor = ours / peer
    verdict = "ok" if factor >= goal else "MISSED"
    return (what, f"{ours:,.0f} words/s", f"{peer:,.0f} words/s ({peer_name})", f"{factor:.1f}x", f">= {goal}x", verdict)


def share(what, ours, peer, peer_name, goal):
    verdict = "ok" if ours >= goal * peer else "MISSED"
    return (what, f"{ours:.3f}", f"{peer:.3f} ({peer_name})", f"{ours / peer:.2f}", f">= {goal}", verdict)


def limit(what, ours, peer, unit, goal):
    verdict = "" if goal is None else "ok" if ours <= goal else "MISSED"
    shown = f"{ours:.2f} {unit}"
    other = "" if peer is None else f"{peer:.2f} {unit}"
    return (what, shown, other, shown, "" if goal is None else f"<= {goal} {unit}", verdict)


def skipped(what, reason):
    print(f"skipped: {reason}")
    return (what, "", "", "skipped", "", "")


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def ranks(*arguments, watched=True):
    return measured(["mpirun", "-n", str(RANKS), PROGRAM, *map(str, arguments)], watched)


def threads(*arguments, watched=True, **environment):
    return measured([PROGRAM, *map(str, arguments)], watched, **environment)


def run_peer(*arguments, watched=True):
    run = measured([sys.executable, str(PEERS), *map(str, arguments)], watched)
    return {**run, "whole": run["seconds"], **json.loads(run["output"])}


def measured(command, watched=True, **more):
    """Runs a command to its end: its seconds, its seconds of a core (`cpu`), its peak memory in bytes, what
    it printed. To watch its memory takes a tenth of a core, so where both cores are measured and memory is
    not asked for, it is not `watched`; its memory is then 0."""
    environment = {
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_hwloc_base_binding_policy": "none",
        **os.environ,
        **{key: str(value) for key, value in more.items()},
    }
    if os.geteuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    # What an earlier command left to be written would be written during this one.
    os.sync()
    used = cpu_of_children()
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], sum(map(proportional_set_size, family(process.pid))))

    watcher = threading.Thread(target=watch)
    if watched:
        watcher.start()
    try:
        output, errors = process.communicate(timeout=3600)
        seconds = time.perf_counter() - begun
    finally:
        done.set()
        if watched:
            watcher.join()
        if process.poll() is None:
            process.kill()
    if process.returncode != 0:
        sys.exit(f"bench: {' '.join(command)}: exit code {process.returncode}\n{output}{errors}")
    say(f"  {seconds:8.2f} s  {peak[0] / GIB:.2f} GiB  {' '.join(command[:6])} ...")
    return {"seconds": seconds, "cpu": cpu_of_children() - used, "memory": peak[0], "output": output}


def cpu_of_children():
    """Seconds of a core that all commands which have ended took, their own children included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def family(pid):
    """A process and all that descend from it."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                children = Path(f"/proc/{pid}/task/{thread}/children").read_text()
                todo += map(int, children.split())
        except OSError:
            continue
    return found


def proportional_set_size(pid):
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ProcessLookupError):
        pass
    return 0


def histogram_of(results):
    """All pairs, and those in each of the peer's bins, from the exact counts of a results file."""
    import h5py
    import numpy as np

    with h5py.File(results) as file:
        shared, union = file["tally/shared"][:], file["tally/union"][:]
        images = file["tally/images"][:].astype(np.int64)
    score = np.where(union > 0, shared / np.maximum(union, 1), 0.0)
    bins = np.histogram(score, bins=10, range=(0.0, 1.0), weights=images)[0]
    return [int(images.sum()), *map(int, bins)]


def shared_data():
    for place in (os.environ.get("STRATIGRAPH_SHARED"), "../shared"):
        if place and (Path(place) / "data").is_dir():
            return Path(place)
    return None


def unpacked(shared):
    """The dev corpus as a directory, unpacked once."""
    target = WORK / "dev-source"
    if not target.exists():
        import zstandard

        say("  unpacking the dev corpus")
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        with open(shared / "data/registry-corpus-dev.tar.zst", "rb") as packed:
            with zstandard.ZstdDecompressor().stream_reader(packed) as stream:
                with tarfile.open(fileobj=stream, mode="r|") as archive:
                    archive.extractall(partial)
        partial.rename(target)
    return target


def warm(directory):
    """Reads every file once, so that both sides find them in memory."""
    for path in directory.rglob("*"):
        if path.is_file():
            path.read_bytes()


def fresh(name):
    path = WORK / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return path


def say(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
