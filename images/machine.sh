#!/bin/sh
# The file system of the "other machines" that tests/hosts/machines.py boots, from Debian packages:
#
#     sh images/machine.sh
#
# Makes ${SAF_ENV_CACHE:-.saf/cache}/machines/debian, unless it is there and these scripts made it:
#
#     root/      the smallest Debian of this machine's release, with sshd, fish and systemd, which does not run it;
#                no Python, curl, uv or git
#     python/    what Debian's own Python 3, with venv and pip, adds to it: a layer for overlayfs
#     inputs     these scripts, as they were
#
# It also installs what the tests need on this machine itself.
set -eu
umask 022

trap 'exit 130' INT                  # so that what is to be done at the end is done
trap 'exit 143' TERM HUP

here=$(cd -- "$(dirname -- "$0")" && pwd)
# shellcheck source=images/debian.sh
. "$here/debian.sh"
# shellcheck source=images/rootfs.sh
. "$here/rootfs.sh"

# What the tests call on this machine, and the package that has it.
install_tools() {
    set --
    command -v debootstrap >/dev/null 2>&1 || set -- "$@" debootstrap
    command -v ip >/dev/null 2>&1 || set -- "$@" iproute2
    command -v iptables >/dev/null 2>&1 || set -- "$@" iptables
    command -v nsenter >/dev/null 2>&1 || set -- "$@" util-linux
    command -v ssh >/dev/null 2>&1 || set -- "$@" openssh-client
    [ $# = 0 ] || install_packages "$@"
}

# fish without the Python that its package asks for: only helpers of its own call it.
add_fish() {
    say "adding fish"
    mkdir "$work/fish"
    chown _apt "$work/fish"
    (cd "$work/fish" && APT_CONFIG=$work/apt/apt.conf apart apt-get download -qq fish fish-common)
    for package in "$work"/fish/*.deb; do
        dpkg-deb -x "$package" "$work/fish/files"
    done
    # Into the folder's /usr, which /bin and /lib of the system are links to.
    cp -a -- "$work/fish/files/." "$root/"
    echo /usr/bin/fish >>"$root/etc/shells"
    apart chroot "$root" /usr/bin/fish -c true
}

# add_python: a layer of its own, so that a machine can be had with it and without.
add_python() {
    say "making a layer with Debian's Python"
    mkdir "$made/python" "$work/overlay" "$work/merged"
    # shellcheck disable=SC2016        # the dollars are the inner shell's
    DEBIAN_FRONTEND=noninteractive APT_CONFIG=$work/apt/apt.conf apart sh -c '
        set -eu
        mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
        mkdir -p "$4/var/cache/apt/archives/partial"
        apt-get install -qq --no-install-recommends -o APT::Architecture="$5" \
            -o DPkg::Chroot-Directory="$4" -o Dir::State::status="$4/var/lib/dpkg/status" \
            -o Dir::State::extended_states="$4/var/lib/apt/extended_states" \
            -o Dir::Cache::archives="$4/var/cache/apt/archives" python3 python3-venv python3-pip
        rm -rf "$4"/var/cache/apt/* "$4"/var/cache/debconf/*-old "$4"/var/log/* "$4"/etc/*-
        ' sh "$root" "$made/python" "$work/overlay" "$work/merged" "$arch"
}

# A test that finds no Python on a machine would else pass for the wrong reason.
require_bare() {
    found=$(find "$root" -type d \( -path "$root/proc" -o -path "$root/sys" \) -prune -o \
        \( -name 'python*' -o -name curl -o -name wget -o -name uv -o -name git \) -path '*bin/*' -print)
    [ -z "$found" ] || fail 6 "the machine is not bare: it has $found" "see which package brought it in"
}

require_debian "images/machine.sh"
arch=$(dpkg --print-architecture)
cache=${SAF_ENV_CACHE:-$here/../.saf/cache}
mkdir -p "$cache/machines"
out=$(cd -- "$cache/machines" && pwd)/debian
install_tools
inputs=$(cat -- "$here/debian.sh" "$here/rootfs.sh" "$here/machine.sh" && echo "$release $arch")
if [ "$inputs" = "$(cat -- "$out/inputs" 2>/dev/null)" ]; then
    say "$out is there"
    exit
fi

# Not /tmp: that may be memory. Not the cache: its path may have what debootstrap or overlayfs does not take.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/saf-env-machine.XXXXXX")
new=$out.$$
trap 'cd / && rm -rf --one-file-system -- "$work" "$new"' EXIT
unset TMPDIR                         # the packages' scripts run in the new system, which has no such folder
chmod 755 "$work"                    # apt fetches as its own user
made=$work/made
root=$made/root
mkdir "$made"
private_apt "$work/apt" "$release"
# A file system for tests need not survive a power cut while it is made, and nobody reads its manuals.
mkdir -p "$root/etc/dpkg/dpkg.cfg.d"
printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/locale/*' \
    'path-exclude=/usr/share/doc/*' >"$root/etc/dpkg/dpkg.cfg.d/saf-env"
install_system openssh-server,libpcre2-32-0,libstdc++6,systemd
add_fish
clean_system
rm -f -- "$root"/etc/ssh/ssh_host_*  # each machine has its own
(cd -- "$root/root" && rm -rf .ssh)   # systemd makes it, and the tests make one with their keys
require_bare
add_python
printf '%s\n' "$inputs" >"$made/inputs"
mv -- "$made" "$new"
rm -rf --one-file-system -- "$out"
mv -T -- "$new" "$out"
say "made $out"
