"""The rows on reading images, against Debian's docker-registry on loopback.

The image is a real one, made by mmdebstrap once and kept in target/bench. Called by compare.py.
"""

import gzip
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import compare as bench

WORK = bench.WORK
PARTS, IMAGE_LAYERS, SHARED_LAYERS, IMAGES = 4, 144, 50, 1000
BIG_NAMES, BIG_FILE = 200_000, 3 * bench.GIB
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def rows():
    tools = ("docker-registry", "skopeo", "umoci", "mmdebstrap")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return [bench.skipped("layer streams", f"no {', '.join(missing)}")]
    archive = debian()
    universe = WORK / "universe"
    with tarfile.open(archive) as names:
        universe.write_bytes(b"".join(name.encode(errors="surrogateescape") + b"\n" for name in names.getnames()))
    with Registry() as registry:
        packed = gzip.compress(archive.read_bytes(), 6)
        diff_id = hashlib.sha256(archive.read_bytes()).hexdigest()
        registry.image("lab/debian", "1", [registry.layer("lab/debian", packed, diff_id)])
        found = one_image(registry, universe) + one_layer(packed, diff_id, universe)
        return found + many_layers(registry, archive, universe) + memory(universe) + shared(registry, universe)


def debian():
    """A minimal Debian as an archive, from the mirror that apt is set up with."""
    archive = WORK / "debian.tar"
    if not archive.exists():
        bench.say("  making a Debian image")
        sources = [*Path("/etc/apt").glob("sources.list"), *Path("/etc/apt/sources.list.d").glob("*.sources")]
        release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
        partial = WORK / "debian.partial.tar"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", release["VERSION_CODENAME"], partial]
        debian_only = [path for path in sources if path.name in ("sources.list", "debian.sources")]
        subprocess.run([*command, *debian_only], check=True, timeout=600)
        partial.rename(archive)
    return archive


def rootfs(*arguments, universe, ranks=1, threads=1, out="rootfs"):
    run = bench.ranks if ranks > 1 else bench.threads
    options = ["--universe", universe, "-o", bench.fresh(out), "--request-rate", "1e6", "--connections", "8"]
    return run("--threads", threads, "rootfs", *arguments, *options, watched=False)


def one_image(registry, universe):
    """From the registry to the names of all files, digests checked on both sides."""
    name = f"{registry.address}/lab/debian:1"
    ours = [
        rootfs(name, "--plain-http", registry.address, universe=universe, threads=bench.RANKS)
        for _ in range(bench.REPEATS)
    ]
    peer = []
    for _ in range(bench.REPEATS):
        layout, bundle = bench.fresh("layout"), bench.fresh("bundle")
        script = (
            f"skopeo copy -q --insecure-policy --src-tls-verify=false docker://{name} oci:{layout}:x"
            f" && umoci unpack --image {layout}:x {bundle} 2>/dev/null && find {bundle}/rootfs >{WORK}/found"
        )
        peer.append(bench.measured(["sh", "-euc", script]))
    bench.fresh("bundle")
    mine, its = bench.median(ours, "seconds"), bench.median(peer, "seconds")
    return [bench.ratio("a Debian image from a registry, its paths", mine, its, "skopeo + umoci + find", 6)]


def one_layer(packed, diff_id, universe):
    """The same layer from a file: both digests on our side, none on the other."""
    layout = bench.fresh("one-layer")
    write_layout(layout, [(packed, diff_id)])
    file = WORK / "layer.tar.gz"
    file.write_bytes(packed)
    ours = [rootfs(f"oci:{layout}", universe=universe, threads=bench.RANKS) for _ in range(bench.REPEATS)]
    alone = [rootfs(f"oci:{layout}", universe=universe) for _ in range(bench.REPEATS)]
    peer = [bench.run_peer("tar", file) for _ in range(bench.REPEATS)]
    its = bench.median(peer, "seconds")
    return [
        bench.ratio("one gzip layer, digests checked", bench.median(ours, "seconds"), its, "tarfile, no hashing", 1.4),
        bench.ratio("  on one thread", bench.median(alone, "seconds"), its, "tarfile, no hashing", None),
    ]


def many_layers(registry, archive, universe):
    """Layers of about the same size, so many that starting (0.15 s on one rank, 0.26 s on two) is at most
    two hundredths of the time; one rank of one thread against two. From a directory each rank has a core. A registry on
    the same machine takes its share of the two cores, which one rank leaves it and two do not: the seconds of a
    core that both together take bound what two ranks can gain, and are shown."""
    parts = []
    for content in parts_of(archive):
        parts.append((gzip.compress(content, 6), hashlib.sha256(content)))
    layers = []
    for i in range(IMAGE_LAYERS):
        packed, sha = parts[i % PARTS]
        end, hashed = one_file_archive(f"layer-{i}"), sha.copy()
        hashed.update(end)
        layers.append((packed + gzip.compress(end), hashed.hexdigest()))
    layout = bench.fresh("many")
    write_layout(layout, layers)
    stored = [registry.layer("lab/many", *layer) for layer in layers]
    registry.image("lab/many", "1", stored)
    mebibytes = sum(len(packed) for packed, _ in layers) >> 20
    name = f"{IMAGE_LAYERS} layers, {mebibytes} MiB in all, two ranks of one thread"

    def both(arguments):
        # In turns: the speed of a machine drifts.
        runs = [[rootfs(*arguments, universe=universe, ranks=ranks) for ranks in (1, 2)] for _ in range(bench.REPEATS)]
        return [run[0] for run in runs], [run[1] for run in runs]

    one, two = both([f"oci:{layout}"])
    rows = [
        bench.ratio(f"{name}, from a directory", bench.work_of(two), bench.work_of(one), "one rank", 1.8),
        bench.ratio("  whole command, starts included", bench.median(two, "seconds"), bench.median(one, "seconds"), "", None),
    ]
    before = registry.seconds()
    one, two = both([f"{registry.address}/lab/many:1", "--plain-http", registry.address])
    own = (registry.seconds() - before) / (2 * bench.REPEATS)
    alone, work = bench.work_of(one), bench.median(one, "cpu")
    least = (work + own) / bench.RANKS
    name = f"    at best: ({work:.1f} s of a core for the layers + {own:.1f} s for the registry) / {bench.RANKS}"
    return [
        *rows,
        bench.ratio("  from a registry on the same two cores", bench.work_of(two), alone, "one rank", 1.8),
        (name, f"{least:.3f} s", f"{alone:.2f} s", f"{alone / least:.1f}x", "", ""),
    ]


def parts_of(archive):
    """The archive cut into parts of about the same size, without the end that an archive has."""
    with tarfile.open(archive) as whole:
        size = archive.stat().st_size // PARTS + 1
        parts = [io.BytesIO() for _ in range(PARTS)]
        out = [tarfile.open(fileobj=part, mode="w", format=tarfile.PAX_FORMAT) for part in parts]
        for member in whole:
            out[member.offset // size].addfile(member, whole.extractfile(member) if member.isreg() else None)
    return [part.getvalue()[: part.tell()] for part in parts]


def memory(universe):
    """The most that each of two ranks ever had, while each read a layer of many GiB and names."""
    layout = WORK / "big"
    if not layout.exists():
        partial = bench.fresh("big.partial")
        write_layout(partial, [big_layer(n) for n in range(2)])
        partial.rename(layout)
    program = [sys.executable, str(bench.PEERS.with_name("peak.py")), bench.PROGRAM]
    options = ["--threads", "1", "rootfs", f"oci:{layout}", "--universe", str(universe), "-o", str(bench.fresh("rootfs"))]
    run = bench.measured(["mpirun", "-n", str(bench.RANKS), *program, *options])
    peaks = [int(n) for n in re.findall(r"^peak: (\d+)$", run["output"], re.MULTILINE)]
    if len(peaks) != bench.RANKS:
        sys.exit(f"bench: no peaks in:\n{run['output']}")
    name = f"  most memory of a rank, a layer of {BIG_FILE >> 30} GiB and {BIG_NAMES} names each"
    return [bench.limit(name, max(peaks) / 2**20, None, "MiB", 64)]


def big_layer(number):
    bench.say("  making a large layer")
    stored, sha = io.BytesIO(), hashlib.sha256()

    class Both:
        def write(self, data):
            sha.update(data)
            return packer.write(data)

    class Zeros:
        left = BIG_FILE

        def read(self, size):
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    with gzip.GzipFile(fileobj=stored, mode="wb", compresslevel=1) as packer:
        with tarfile.open(fileobj=Both(), mode="w|", format=tarfile.GNU_FORMAT) as archive:
            about = tarfile.TarInfo(f"big-{number}")
            about.size = BIG_FILE
            archive.addfile(about, Zeros())
            for i in range(BIG_NAMES):
                digest = hashlib.sha256(f"{number} {i}".encode()).hexdigest()
                if i % 10 == 0:
                    directory = f"usr/lib/python3/dist-packages/{digest[:2]}/package_{digest[:9]}"
                    about = tarfile.TarInfo(directory)
                    about.type = tarfile.DIRTYPE
                else:
                    about = tarfile.TarInfo(f"{directory}/module_{digest[:8]}.py")
                archive.addfile(about)
    return stored.getvalue(), sha.hexdigest()


def shared(registry, universe):
    """A campaign of many images that share their layers; the registry counts."""
    layers = []
    for i in range(SHARED_LAYERS):
        archive = one_file_archive(f"shared-{i}")
        layers.append(registry.layer("lab/shared", gzip.compress(archive), hashlib.sha256(archive).hexdigest()))
    for i in range(IMAGES):
        chosen = [layers[(i * step + step) % SHARED_LAYERS] for step in (1, 3, 7, 11, 13, 17)]
        registry.image("lab/shared", f"v{i}", list(dict.fromkeys(chosen)), f"image {i}")
    before, asked = registry.sent(), registry.asked()
    listing = WORK / "images"
    listing.write_text("".join(f"{registry.address}/lab/shared:v{i}\n" for i in range(IMAGES)))
    run = rootfs("--list", listing, "--plain-http", registry.address, universe=universe, ranks=bench.RANKS)
    if json.loads((WORK / "rootfs/rootfs.json").read_text())["images_with_paths"] != IMAGES:
        sys.exit(f"bench: not all images were read:\n{run['output']}")
    after, asked = registry.sent(), registry.asked() - asked
    times = [after.get(digest, 0) - before.get(digest, 0) for digest, _, _ in layers]
    if min(times) < 1:
        sys.exit("bench: a layer was not read at all")
    name = f"{IMAGES} images on {SHARED_LAYERS} layers: most often that a layer was sent"
    return [
        bench.limit(name, max(times), None, "times", 1),
        # A manifest and a config for each image, and each layer.
        bench.limit("  all requests in the registry's log", asked, None, "requests", 2 * IMAGES + SHARED_LAYERS),
        bench.limit("  whole command", run["seconds"], None, "s", None),
    ]


def one_file_archive(name):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        about = tarfile.TarInfo(f"opt/{name}")
        about.size = len(name)
        archive.addfile(about, io.BytesIO(name.encode()))
    return out.getvalue()


def image_documents(layers, comment):
    """Config and manifest of an image of these layers: (digest, size, diff_id)."""
    config = {
        "os": "linux", "architecture": "amd64", "comment": comment,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}" for _, _, diff_id in layers]},
    }
    config = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(config), "size": len(config)},
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size}
            for digest, size, _ in layers
        ],
    }
    return config, json.dumps(manifest).encode()


def write_layout(layout, layers):
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data):
        (blobs / digest_of(data).removeprefix("sha256:")).write_bytes(data)
        return digest_of(data)

    config, manifest = image_documents([(put(data), len(data), diff_id) for data, diff_id in layers], "")
    put(config)
    entry = {"mediaType": MANIFEST, "digest": put(manifest), "size": len(manifest)}
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """Debian's docker-registry on a free port, with a directory of its own that goes with it."""

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.place = bench.fresh("registry")
        self.place.mkdir()
        settings = self.place / "config.yml"
        settings.write_text(
            f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {self.place}/storage\n"
            f"http:\n  addr: {self.address}\n"
        )
        self.log = self.place / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", settings], stdout=log, stderr=log)
        for _ in range(200):
            try:
                socket.create_connection(self.address.split(":")).close()
                return self
            except OSError:
                time.sleep(0.05)
        sys.exit("bench: docker-registry does not start")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.place, ignore_errors=True)

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection(self.address, timeout=60)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status >= 300:
            sys.exit(f"bench: the registry answers {answer.status} to {method} {path}")
        return answer

    def blob(self, repository, data):
        begun = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
        place = urlsplit(begun.headers["Location"])
        path = f"{place.path}?{place.query}&digest={digest_of(data)}"
        self.ask("PUT", path, data, **{"Content-Type": "application/octet-stream"})

    def layer(self, repository, packed, diff_id):
        """Stores a layer; gives what an image needs to name it."""
        self.blob(repository, packed)
        return digest_of(packed), len(packed), diff_id

    def image(self, repository, tag, layers, comment=""):
        config, manifest = image_documents(layers, comment)
        self.blob(repository, config)
        self.ask("PUT", f"/v2/{repository}/manifests/{tag}", manifest, **{"Content-Type": MANIFEST})

    def seconds(self):
        """Seconds of a core that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def asked(self):
        """How often it was asked for a manifest or a blob."""
        return len(re.findall(r'"(?:GET|HEAD) /v2/\S+/(?:blobs|manifests)/', self.log.read_text()))

    def sent(self):
        """How often each blob was sent."""
        counts = {}
        for digest in re.findall(r'"GET /v2/\S+/blobs/(sha256:[0-9a-f]+)', self.log.read_text()):
            counts[digest] = counts.get(digest, 0) + 1
        return counts
