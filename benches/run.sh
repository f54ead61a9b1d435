#!/usr/bin/env bash
# Side by side with Python in one run: makes the virtual environment of the peers, then measures.
#
#   benches/run.sh [import] [tokens] [jaccard] [synthetic] [published] [cosine] [embed] [classify] [rootfs]     [default: all]
#
# The corpora are looked for in $STRATIGRAPH_SHARED, then in ../shared.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=target/bench-venv
stamp=$venv/requirements.txt
if ! cmp -s benches/requirements.txt "$stamp"; then
    echo "bench: making $venv" >&2
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r benches/requirements.txt
    cp benches/requirements.txt "$stamp"
fi
exec "$venv/bin/python" benches/compare.py "$@"
