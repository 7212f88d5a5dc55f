# shellcheck shell=sh
# What base.sh and machine.sh share: a Debian of the machine's own release in a folder. Sourced after
# debian.sh, not run. Whoever calls these has set `work` (a private folder), `root` (the new system, below
# it), `arch` (Debian's name) and, with require_debian, `release`.

# apart COMMAND…: what it mounts is seen by nobody else and goes with it, however it ends; so removing the
# folder can never reach through a mount. Its words are for the one who looks for a fault.
apart() {
    unshare --mount -- "$@" >"$work/log" 2>&1 </dev/null || {
        tail -n 20 "$work/log" >&2
        fail 3 "$1 failed" "the end of its messages is above; the package sources are in /etc/apt"
    }
}

# The machine's source of the release itself: debootstrap takes one, and its keyring. Sets mirror and keyring.
find_mirror() {
    # shellcheck disable=SC2016        # the dollars are apt's
    found=$(APT_CONFIG=$work/apt/apt.conf apt-get indextargets \
        --format '$(CODENAME) $(REPO_URI) $(SIGNED_BY)' 'Created-By: Packages' 'Component: main' |
        sed -n "s/^$release //p" | head -n 1)
    mirror=${found%% *}
    keyring=${found#* }
    case $keyring in
        /*) ;;
        *) keyring=/usr/share/keyrings/debian-archive-keyring.gpg ;;
    esac
    [ -n "$mirror" ] || {
        cat "$work/apt/update.log" >&2
        fail 3 "no package source of this machine gives Debian $release" "apt's messages are above"
    }
}

# chroot_apt FOLDER ARGUMENT…: the apt of the machine, which can reach and trust its sources, works on the
# system in FOLDER.
chroot_apt() {
    system=$1
    shift
    DEBIAN_FRONTEND=noninteractive APT_CONFIG=$work/apt/apt.conf apart apt-get -qq \
        --no-install-recommends -o APT::Architecture="$arch" -o DPkg::Chroot-Directory="$system" \
        -o Dir::State::status="$system/var/lib/dpkg/status" \
        -o Dir::State::extended_states="$system/var/lib/apt/extended_states" \
        -o Dir::Cache::archives="$system/var/cache/apt/archives" "$@"
}

# install_system PACKAGE,…: the smallest Debian and these, with all updates.
install_system() {
    find_mirror
    say "installing Debian $release in a folder"
    set -- --variant=minbase --arch="$arch" --include="$1" \
        --force-check-gpg --keyring="$keyring" "$release" "$root" "$mirror"
    # Of a hundred packages a mirror fails to give one now and then: what was had stays for the next try.
    for _ in 1 2; do
        debootstrap --download-only "$@" >"$work/log" 2>&1 </dev/null && break
        say "not all packages could be fetched; trying again"
        sleep 2
    done
    apart debootstrap "$@"
    # debootstrap knows one source; what the others (security, updates) have newer comes here. No service
    # may start in the folder: its processes would be the machine's, and outlive this script.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    say "adding its updates"
    chroot_apt "$root" dist-upgrade
    rm "$root/usr/sbin/policy-rc.d"
}

# Removes what is of this machine or of this hour, and what no node reads.
clean_system() {
    cd "$root"
    rm -rf dev/* dev/.[!.]* run/* tmp/* var/tmp/* var/log/* \
        var/lib/apt/lists/* var/lib/apt/extended_states var/cache/apt/* var/cache/debconf/*-old \
        var/cache/ldconfig/* var/lib/dpkg/*-old etc/*- etc/*.dpkg-old \
        etc/resolv.conf etc/hostname etc/hosts etc/machine-id etc/apt/sources.list etc/apt/sources.list.d/* \
        usr/share/man/* usr/share/info/* usr/share/locale/* usr/share/groff/* usr/share/lintian/*
    # The licences stay.
    find usr/share/doc -depth ! -type d ! -name copyright -delete -o -type d -empty -delete
    echo "# The image was made on a machine with package sources of its own; put yours here." >etc/apt/sources.list
    cd /
}
