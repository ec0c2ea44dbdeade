#!/bin/sh
# Makes a package for Debian and its kin out of a built program. Checked by lintian, in the tests.
#
# Usage: packaging/deb/build.sh PROGRAM OUTPUT-DIRECTORY
#
# Needs dpkg-dev and binutils. DEBEMAIL, and DEBFULLNAME where it is set, are those of who makes the package.
# DEB_LEVEL is how hard it is compressed, from 0 to 9. The same program, and the same SOURCE_DATE_EPOCH, give the
# same package.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 PROGRAM OUTPUT-DIRECTORY" >&2; exit 2; }
program=$(realpath "$1") output=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
arch=$(dpkg --print-architecture)
: "${SOURCE_DATE_EPOCH:=$(git -C "$root" log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
[ -n "${DEBEMAIL:-}" ] || { echo "$0: DEBEMAIL is not set: whom are people to write to?" >&2; exit 2; }
umask 022

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage=$work/stage
doc=$stage/usr/share/doc/kinfold

ZSHDIR=/usr/share/zsh/vendor-completions "$root/packaging/install.sh" "$program" "$stage"
strip --strip-unneeded --remove-section=.comment --remove-section=.note "$stage/usr/bin/kinfold"
find "$stage/usr/share/man" -type f -exec gzip -9n {} +

install -m 644 "$here/copyright" "$doc/copyright"
# What the package calls its changelog: that of the program, and that of the packaging.
rm "$doc/CHANGELOG.md"
gzip -9nc "$root/CHANGELOG.md" > "$doc/changelog.gz"
date=$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
maintainer="${DEBFULLNAME:-The Kinfold authors} <$DEBEMAIL>"
printf 'kinfold (%s-1) unstable; urgency=medium\n\n  * Made from the sources of version %s.\n\n -- %s  %s\n' \
    "$version" "$version" "$maintainer" "$date" | gzip -9nc > "$doc/changelog.Debian.gz"
chmod 644 "$doc"/*
# There is no report in Debian's tracker that asks for it.
mkdir -p "$stage/usr/share/lintian/overrides"
echo 'kinfold: initial-upload-closes-no-bugs' > "$stage/usr/share/lintian/overrides/kinfold"

# What the program is linked to, in the words of this distribution.
mkdir "$work/debian"
printf 'Source: kinfold\n\nPackage: kinfold\nArchitecture: any\n' > "$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O --ignore-missing-info "$stage/usr/bin/kinfold" 2>/dev/null |
    sed -n 's/^shlibs:Depends=//p')
[ -n "$depends" ] || { echo "$0: cannot tell what $program is linked to" >&2; exit 1; }

mkdir "$stage/DEBIAN"
size=$(du -sk --apparent-size "$stage/usr" | cut -f 1)
cat > "$stage/DEBIAN/control" <<END
Package: kinfold
Version: $version-1
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $size
Depends: $depends
Section: net
Priority: optional
Description: keep folders identical across your own devices
 Kinfold keeps folders identical on your own computers, over your own network.
 There is no server, no account and no packet for anybody else: devices talk
 to each other directly, encrypted, and only to devices that you named on both
 sides. What a sync overwrites or deletes is kept for a while and can be
 brought back. Edits made at the same time are both kept.
END
for script in postinst postrm; do
    install -m 755 "$here/$script" "$stage/DEBIAN/$script"
done
(cd "$stage" && find usr -type f | LC_ALL=C sort | xargs md5sum) > "$stage/DEBIAN/md5sums"
chmod 644 "$stage/DEBIAN/control" "$stage/DEBIAN/md5sums"
find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

package=$output/kinfold_$version-1_$arch.deb
dpkg-deb --root-owner-group -Zxz "-z${DEB_LEVEL:-6}" --build "$stage" "$package" > /dev/null
echo "$package"
