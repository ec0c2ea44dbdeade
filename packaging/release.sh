#!/bin/sh
# Makes what a release consists of, so that whoever has the same commit and the same Rust gets the same bytes: the
# program, the Debian package, the sources, the list of parts (CycloneDX) and the checksums of all of them.
#
# Usage: packaging/release.sh OUTPUT-DIRECTORY
#
# Works on a clone of the commit that is checked out, never on files that were not committed. No path of this machine
# gets into the program, neither of sources nor of crates; times are that of the commit. The linker, and so the
# distribution, still count: build on the one that the release names.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 OUTPUT-DIRECTORY" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
output=$(realpath "$1")
if [ -n "$(git -C "$root" status --porcelain)" ]; then
    echo "$0: there are changes that are not committed" >&2
    exit 1
fi
umask 022
export LC_ALL=C TZ=UTC
SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct)
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --no-hardlinks "$root" "$work/kinfold"
cd "$work/kinfold"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
host=$(rustc -vV | sed -n 's/^host: //p')

cargo_home=${CARGO_HOME:-$HOME/.cargo}
prefixes="$work/kinfold=/kinfold $cargo_home=/cargo $(rustc --print sysroot)=/rust"
for prefix in $prefixes; do
    RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$prefix"
    CFLAGS="${CFLAGS:-} -ffile-prefix-map=$prefix"
done
export RUSTFLAGS CFLAGS CARGO_INCREMENTAL=0
export CARGO_TARGET_DIR="$work/kinfold/target"
# The target is named so that flags are for the program alone, and not for what runs while it is built.
cargo build --quiet --release --locked --target "$host"
program=$CARGO_TARGET_DIR/$host/release/kinfold
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$program"

name=kinfold-$version-$host
mkdir "$work/$name"
cp "$program" LICENSE LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md "$work/$name/"
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" |
    gzip -9n > "$output/$name.tar.gz"
git archive --format=tar --prefix="kinfold-$version/" HEAD | gzip -9n > "$output/kinfold-$version.tar.gz"
packaging/sbom.py "$host" > "$output/kinfold-$version.cdx.json"
packages=
if command -v dpkg-shlibdeps > /dev/null && [ -n "${DEBEMAIL:-}" ]; then
    packages=$(basename "$(packaging/deb/build.sh "$program" "$output")")
else
    echo "$0: no Debian package: it needs dpkg-dev, and DEBEMAIL" >&2
fi
cd "$output"
# shellcheck disable=SC2086 # no package, or the name of one
sha256sum "$name.tar.gz" "kinfold-$version.tar.gz" "kinfold-$version.cdx.json" $packages > SHA256SUMS
cat SHA256SUMS
