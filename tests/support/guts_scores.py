"""Scores of container-guts 0.0.17, by its own walk and its own `Database.similar`, as JSON; beside them
those that `stratigraph classify` wrote (OURS). Scores are in hexadecimal: every bit shows.

    guts_scores.py DATABASE OURS OUTPUT NAME=ROOTFS|NAME=FILE.json ...

A ROOTFS is walked from inside (chroot): links then lead where they lead in the image. A FILE.json is a
manifest of container-guts.
"""

import contextlib
import io
import json
import os
import sys

import container_guts.utils as utils
from container_guts.main.database import Database


class Loaded(Database):
    """The database with its files read once, in the order in which it reads them."""

    def set_database(self):
        super().set_database()
        self.loaded = list(super().iter_containers())

    def iter_containers(self):
        yield from self.loaded


def walk(root):
    """What container-guts lists of an exported image."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.chroot(root)
        os.chdir("/")
        with os.fdopen(writer, "w") as out:
            json.dump(sorted(utils.recursive_find("/", ".*")), out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as paths:
        found = json.load(paths)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"{root} cannot be walked")
    return found


def manifest(place):
    if os.path.isdir(place):
        return {"fs": walk(place), "paths": {}}
    with open(place) as file:
        return next(iter(json.load(file).values()))


database, ours, output, *images = sys.argv[1:]
database = Loaded(database)
with open(ours) as file:
    ours = {image["image"].split(":")[-1]: image["published"]["score"].hex() for image in json.load(file)["images"]}
answers = {}
for name, place in (image.split("=", 1) for image in images):
    with contextlib.redirect_stdout(io.StringIO()):
        scores = database.similar(manifest(place))
    best = scores.pop("most_similar")
    every = list(scores.values())
    answers[name] = {
        "score": best["score"].hex(),
        "our_score": ours[name],
        "first": best["base_image"],
        "best": sorted(s["base_image"] for s in every if s["intersection_div_total_score"] == best["score"]),
        "shared": max(s["intersection"] for s in every),
        "paths": every[0]["total_non_unique_image"],
    }
with open(output, "w") as file:
    json.dump(answers, file)
