#!/usr/bin/env bash
# Installs what is missing to build (and, with `test`, to test) on Debian and its relatives.
#
#   .ci/setup.sh build|test
#
# What is needed is looked for by what it offers (a command, a library, a Python module), not by
# package name, so a cluster where modules or Spack provide it counts as set up. Only if something
# is missing does apt-get run, as root or through sudo. Where neither is to be had, the packages and
# the module and Spack names are printed; the exit code is 1 if the program cannot be built.
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && return 0
    ldconfig -p 2>/dev/null | grep -q 'libclang'
}

have_hdf5() { [ -n "${HDF5_DIR:-}" ] || { have pkg-config && pkg-config --exists hdf5; } || have h5cc; }

# The tests read results with h5py through Debian's own interpreter: another python3 may come first
# on PATH.
python_has() { [ -x /usr/bin/python3 ] && /usr/bin/python3 -c "import $1" >/dev/null 2>&1; }

missing=()
need() { # PACKAGE TEST...: PACKAGE is missing unless TEST succeeds
    local package=$1
    shift
    "$@" || missing+=("$package")
}

need_to_build() {
    need gcc have cc
    need make have make
    need pkg-config have pkg-config
    need libopenmpi-dev have mpicc
    need openmpi-bin have mpirun
    need clang have clang
    need libclang-dev have_libclang
    need libhdf5-dev have_hdf5
    need hdf5-tools have h5dump
}

need_to_test() {
    need slurm-wlm have slurmctld
    need munge have munged
    need python3 test -x /usr/bin/python3
    need python3-venv python_has ensurepip
    need python3-h5py python_has h5py
    need zstd have zstd
    need umoci have umoci
    need buildah have buildah
    need mmdebstrap have mmdebstrap
    need skopeo have skopeo
    need openssl have openssl
    need busybox-static have busybox
    need docker-registry have docker-registry
    need apache2-utils have htpasswd
}

look() {
    missing=()
    need_to_build
    needed=${#missing[@]}
    [ "$set" = build ] || need_to_test
}

advise() {
    cat >&2 <<TEXT
setup: missing, and this user can install nothing (not root, no sudo without a password):
    apt-get install ${missing[*]}
On a cluster, load what the site offers, then run the same command again:
    modules    module load openmpi hdf5 llvm  (names vary: module avail, module spider)
    Spack      spack load openmpi hdf5 llvm+clang (or: spack install openmpi hdf5~mpi llvm+clang)
    elsewhere  HDF5_DIR=PREFIX (serial HDF5 1.10.7 or newer), LIBCLANG_PATH=DIRECTORY, mpicc on PATH
TEXT
    if [ "$needed" = 0 ]; then
        echo "setup: what is missing is for some tests only; they will be skipped" >&2
        exit 0
    fi
    exit 1
}

set=${1:-build}
case $set in
    build | test) ;;
    *) echo "usage: $0 build|test" >&2; exit 2 ;;
esac

if ! have cargo; then
    echo "setup: there is no cargo; install a Rust toolchain (https://rustup.rs), then run this again" >&2
    exit 1
fi

look
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
    if have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then as_root=(sudo); else advise; fi
fi
if ! have apt-get; then advise; fi

echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt() { timeout 900 "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    echo "setup: apt-get failed; the end of what it said is above" >&2
    exit 1
fi
look
if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: installed, but still not found: ${missing[*]}" >&2
    exit 1
fi
echo "setup: done"
