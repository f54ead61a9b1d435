#!/usr/bin/env bash
# Real images for tests, made once and kept:  images.sh DIR
#
#   DIR/oci:debian    a minimal Debian from the mirror that apt is set up with (mmdebstrap)
#   DIR/oci:apt       a package installed on it by apt-get (buildah)
#   DIR/oci:changed   on that: files and directories deleted, one made anew (opaque), one replaced
#   DIR/oci:arm       a small image of another architecture
#   DIR/zstd, DIR/chunked   `changed` with layers of zstd and of zstd:chunked
#
# Exit code 77: they cannot be made here, for want of root or of a mirror.
set -euo pipefail
target=$1
# Whoever comes second waits for the first.
mkdir -p "$(dirname "$target")"
exec 9>"$target.lock"
flock 9
[ ! -d "$target" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "images.sh: needs root" >&2
    exit 77
fi
work=$target.partial
rm -rf "$work"
mkdir -p "$work"
cd "$work"

sources=()
for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    [ ! -s "$file" ] || sources+=("$file")
done
# shellcheck source=/dev/null
if ! mmdebstrap --quiet --variant=minbase "$(. /etc/os-release && echo "$VERSION_CODENAME")" debian "${sources[@]}"; then
    # Without a mirror it is nobody's fault.
    if apt-get -qq update -o APT::Update::Error-Mode=any; then exit 1; else exit 77; fi
fi
# No padding behind the archive's end: skopeo 1.9 drops it when it writes zstd:chunked, and then the
# layer is not that of its diff_id.
tar --blocking-factor=1 --numeric-owner -C debian -cf debian.tar .
rm -rf debian
umoci init --layout oci
umoci new --image oci:debian
umoci raw add-layer --image oci:debian debian.tar
rm debian.tar

export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
build() { buildah --root "$work/store" --runroot "$work/run" "$@"; }
box=$(build from --quiet oci:oci:debian)
build run "$box" -- sh -euc 'apt-get -qq update && apt-get -qq install --no-install-recommends hello >/dev/null
    rm -r /var/lib/apt/lists/*' 2>/dev/null
build commit --quiet "$box" oci:oci:apt >/dev/null
build rm "$box" >/dev/null

box=$(build from --quiet oci:oci:apt)
build run "$box" -- sh -euc '
    rm -r /usr/share/doc/apt /etc/issue
    rm -r /etc/skel && mkdir /etc/skel && echo new >/etc/skel/new
    rm -r /usr/share/lintian && echo file >/usr/share/lintian
    rm /etc/debian_version && mkdir /etc/debian_version && echo inside >/etc/debian_version/inside
    ln -s /usr/share/doc /doc; ln -s nowhere /etc/dangling; ln /etc/passwd /etc/passwd.link'
build commit --quiet "$box" oci:oci:changed >/dev/null
build rm "$box" >/dev/null

box=$(build from --quiet scratch)
build copy --quiet "$box" /etc/hostname /etc/hostname >/dev/null
build config --arch arm64 "$box"
build commit --quiet "$box" oci:oci:arm >/dev/null
build rm --all >/dev/null
build rmi --all --force >/dev/null
rm -rf store run

for format in zstd zstd:chunked; do
    skopeo copy -q --insecure-policy --dest-compress --dest-compress-format "$format" oci:oci:changed "oci:${format#zstd:}:changed"
done
mv "$work" "$target"
