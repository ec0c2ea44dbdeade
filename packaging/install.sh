#!/bin/sh
# Puts all that belongs to Kinfold into a directory, as it will lie on the disk: the one list of files that all
# packages are made of. Run by the packages and the tests.
#
# Usage: packaging/install.sh PROGRAM DESTDIR
#
# PROGRAM is the built program; it prints its own completions, so it has to run here. The following may be set,
# for distributions that differ: MANDIR, UNITDIR (system and user are below it), ZSHDIR, DOCDIR.
set -eu
[ $# -eq 2 ] || { echo "usage: $0 PROGRAM DESTDIR" >&2; exit 2; }
program=$1 dest=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
: "${MANDIR:=/usr/share/man}" "${UNITDIR:=/usr/lib/systemd}" "${DOCDIR:=/usr/share/doc/kinfold}"
: "${ZSHDIR:=/usr/share/zsh/site-functions}"

put() { install -D -m "$1" "$2" "$dest$3"; }

put 755 "$program" /usr/bin/kinfold
for page in "$root"/man/*; do
    put 644 "$page" "$MANDIR/man${page##*.}/${page##*/}"
done
put 644 "$here/systemd/kinfold.service" "$UNITDIR/user/kinfold.service"
put 644 "$here/systemd/kinfold@.service" "$UNITDIR/system/kinfold@.service"
for name in README.md SECURITY.md CHANGELOG.md; do
    put 644 "$root/$name" "$DOCDIR/$name"
done

# Completions come from the program itself, so that they are those of this version.
completions() {
    mkdir -p "$dest${2%/*}"
    "$program" completions "$1" > "$dest$2"
    chmod 644 "$dest$2"
}
completions bash /usr/share/bash-completion/completions/kinfold
completions zsh "$ZSHDIR/_kinfold"
completions fish /usr/share/fish/vendor_completions.d/kinfold.fish
