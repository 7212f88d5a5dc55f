#!/bin/sh
# A base image from Debian packages, for machines that cannot pull one:
#
#     sh images/base.sh TAG [SOURCE_DATE_EPOCH]
#
# It holds the smallest Debian of the machine's own release and architecture, with its security updates and
# ca-certificates, from the machine's own package sources. Nothing of the machine itself goes in. From
# the same packages it is the same image, with the same id, wherever it is made; no file is newer than the second
# argument (seconds since 1970; without it, the day of the newest package). Writes to standard output:
#
#     id sha256:…        the image
#     digest sha256:…    its one layer, as a plain tar
set -eu
umask 022

trap 'exit 130' INT                  # so that what is to be done at the end is done
trap 'exit 143' TERM HUP

# shellcheck source=images/debian.sh
. "$(dirname -- "$0")/debian.sh"
# shellcheck source=images/rootfs.sh
. "$(dirname -- "$0")/rootfs.sh"

# The format of `docker save`, not of `docker import`: import puts the present time into the image, so the
# same content would get another id each time, and all that is built on it would be built again.
write_image() {
    say "packing"
    mkdir "$work/image"
    tar --create --file="$work/image/layer.tar" --directory="$root" --format=gnu --sort=name \
        --numeric-owner --mtime="@$epoch" --clamp-mtime .
    digest=$(sha256sum "$work/image/layer.tar" | cut -d ' ' -f 1)
    created=$(date --utc --date="@$epoch" +%Y-%m-%dT%H:%M:%SZ)
    printf '%s' '{"architecture":"'"$arch"'","os":"linux","created":"'"$created"'",' \
        '"config":{"Cmd":["bash"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},' \
        '"history":[{"created":"'"$created"'","created_by":"images/base.sh: Debian '"$release"'"}],' \
        '"rootfs":{"type":"layers","diff_ids":["sha256:'"$digest"'"]}}' >"$work/image/config.json"
    echo '[{"Config":"config.json","RepoTags":null,"Layers":["layer.tar"]}]' >"$work/image/manifest.json"
    loaded=$(tar --create --directory="$work/image" . | docker load) || loaded=
    id=$(echo "$loaded" | sed -n 's/^Loaded image ID: //p')
    [ -n "$id" ] || fail 6 "the engine did not take the image" "its messages are above"
    docker tag "$id" "$tag" >&2
}

usage() {
    fail 2 "usage: sh images/base.sh TAG [SOURCE_DATE_EPOCH]" "for example: sh images/base.sh saf-env-base:bookworm"
}
[ $# = 1 ] || [ $# = 2 ] || usage
case $1 in '' | -*) usage ;; esac
case ${2-0} in '' | *[!0-9]*) usage ;; esac
tag=$1
epoch=${2:-}

require_debian "images/base.sh"
arch=$(dpkg --print-architecture)
case $arch in
    amd64 | arm64) ;;                # Debian's names for these are Docker's, too
    *) fail 4 "there is no Ray for Debian's architecture $arch" "make the image on amd64 or arm64" ;;
esac
engine_version >/dev/null || fail 4 "no Docker engine answers" "start one: sh images/engine.sh"
case $(docker image inspect --format . -- "$tag" 2>&1) in
    *"invalid reference"*) fail 2 "'$tag' cannot be the name of an image" "for example: saf-env-base:bookworm" ;;
esac
command -v debootstrap >/dev/null 2>&1 || install_packages debootstrap

# Not /tmp: that may be memory, or a mount on which programs cannot run.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/saf-env-base.XXXXXX")
trap 'cd / && rm -rf --one-file-system -- "$work"' EXIT
unset TMPDIR                         # the packages' scripts run in the new system, which has no such folder
chmod 755 "$work"                    # apt fetches as its own user
root=$work/root
private_apt "$work/apt" "$release"
install_system ca-certificates
# The day of a package is that of its last change; nothing in it is newer.
[ -n "$epoch" ] || epoch=$(find "$root/usr/share/doc" -name 'changelog*.gz' -printf '%T@\n' | sort -n | tail -n 1)
epoch=${epoch%.*}
clean_system
# The day on which a password was last changed.
sed -E "s/^([^:]*:[^:]*):[0-9]+:/\1:$((epoch / 86400)):/" "$root/etc/shadow" >"$work/shadow"
cat "$work/shadow" >"$root/etc/shadow"
write_image
echo "id $id"
echo "digest sha256:$digest"
