#!/usr/bin/env bash
# The accuracy of `stratigraph classify` with the file lists of real packages: fetches the Contents
# index of the Debian release that this machine runs, by apt itself, and runs `stratigraph accuracy`.
#
#   benches/accuracy.sh BASES [arguments of `stratigraph accuracy`]
set -euo pipefail
program=$(dirname "${BASH_SOURCE[0]}")/../target/release/stratigraph
if [[ $# -lt 1 ]]; then
    echo "usage: benches/accuracy.sh BASES [--seed S] [--json FILE] ..." >&2
    exit 2
fi
indexes() { apt-get indextargets 'Created-By: Contents-deb' --format '$(FILENAME)'; }
if [[ -z $(indexes) ]]; then
    if [[ $(id -u) -ne 0 ]]; then
        echo "accuracy.sh: no Contents index; ask for the package apt-file, then run apt-file update" >&2
        exit 1
    fi
    apt-get install -y -q --no-install-recommends apt-file >&2
    apt-file update >&2
fi
contents=$(mktemp)
trap 'rm -f "$contents"' EXIT
indexes | while read -r file; do /usr/lib/apt/apt-helper cat-file "$file"; done >"$contents"
"$program" accuracy "$@" --contents "$contents"
