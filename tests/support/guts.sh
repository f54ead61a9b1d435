#!/usr/bin/env bash
# A virtual environment with the container-guts of the study, made once and kept:  guts.sh DIR
#
# Exit code 77: it cannot be installed here (no network).
set -euo pipefail
target=$1
mkdir -p "$(dirname "$target")"
exec 9>"$target.lock"
flock 9
stamp=$target/container-guts-0.0.17
[ ! -e "$stamp" ] || exit 0
rm -rf "$target"
/usr/bin/python3 -m venv "$target"
timeout 300 "$target/bin/pip" install --quiet --disable-pip-version-check container-guts==0.0.17 || exit 77
touch "$stamp"
