#!/bin/sh
# A Docker engine with Compose and Buildx on a plain Debian machine, from the machine's own package sources:
#
#     sh images/engine.sh [start]     install what is missing, start the engine if none answers
#     sh images/engine.sh status      what answers, in which version; 4 if something is missing
#     sh images/engine.sh stop        stop the engine if `start` started it, else leave it alone
#
# A machine on which all is there already is left as it is, whoever installed it.
set -eu

trap 'exit 130' INT                  # so that what is to be done at the end is done
trap 'exit 143' TERM HUP

# shellcheck source=images/debian.sh
. "$(dirname -- "$0")/debian.sh"

state=/run/saf-env-engine            # "PID STARTTIME HOW" of the engine that we started; gone after a boot
log=/var/log/saf-env-engine.log
plugins=/usr/local/lib/docker/cli-plugins
seconds=60                           # an engine comes up in about two

# The version of a plugin in the form 2.26.1; fails if the client does not find it.
plugin_version() {
    bounded 20 docker "$1" version 2>/dev/null |
        sed -n 's/.*[ v]\([0-9][0-9]*\.[0-9][0-9]*[.0-9]*\).*/\1/p' | head -n 1 | grep .
}

# compose_usable: Compose 2.20 or newer, the first whose `up --wait` and merging of files fit compose.yaml.
compose_usable() {
    version=$(plugin_version compose) || return 1
    major=${version%%.*}
    minor=${version#*.}
    minor=${minor%%.*}
    [ "$major" -gt 2 ] || { [ "$major" -eq 2 ] && [ "$minor" -ge 20 ]; }
}

# start_time PID: when the process started, in ticks since boot; with the number it names a process for good.
# Fails if it has ended.
start_time() {
    # The name of the program, in brackets, may hold blanks: count behind it. Z has ended, but nobody has asked.
    sed -n 's/.*) //; /^Z/!p' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20 | grep .
}

# ours: reads the record; true if the engine that we started is alive. Sets pid and how.
ours() {
    [ -r "$state" ] && read -r pid started how <"$state" && [ "$(start_time "$pid")" = "$started" ]
}

# record PID HOW
record() {
    pid=$1 how=$2
    echo "$pid $(start_time "$pid") $how" >"$state"
}

install_engine() {
    set --
    command -v dockerd >/dev/null 2>&1 || set -- "$@" docker.io
    command -v iptables >/dev/null 2>&1 || set -- "$@" iptables
    [ $# = 0 ] || install_packages "$@"
    # From Debian 13 on the client is a package of its own. One from elsewhere serves as well.
    command -v docker >/dev/null 2>&1 || install_packages docker-cli
}

# Debian 12 has Compose 1 and no Buildx, Debian 13 has both as static programs. Only these are taken from
# there, so no other package of the machine changes its release.
install_plugins() {
    # shellcheck disable=SC2154       # set by require_debian
    case $release in
        bullseye | bookworm) from=trixie ;;
        *) from=$release ;;
    esac
    say "installing $* from Debian $from"
    work=$(mktemp -d)
    trap 'rm -rf -- "$work"' EXIT
    chmod 755 "$work"                # apt fetches as its own user
    private_apt "$work" "$from"
    mkdir "$work/packages"
    chown _apt "$work/packages"
    (cd "$work/packages" && APT_CONFIG=$work/apt.conf apt-get download -qq "$@") >&2 </dev/null || {
        cat "$work/update.log" >&2
        fail 3 "apt-get could not fetch $* of Debian $from" \
            "its messages are above; the mirrors of /etc/apt must carry that release"
    }
    mkdir -p "$plugins"
    for package in "$work"/packages/*.deb; do
        name=${package##*/}
        name=${name%%_*}
        dpkg-deb -x "$package" "$work/$name"
        # By rename, so that a client that runs at this moment sees no half file.
        find "$work/$name" -path "*/cli-plugins/$name" -type f -exec install -m 755 {} "$plugins/$name.new" \;
        mv -- "$plugins/$name.new" "$plugins/$name"
    done
    rm -rf -- "$work"
    trap - EXIT
}

start_service() {
    where="journalctl --unit=docker.service"
    systemctl start docker.service >&2 || fail 6 "the service docker did not start" "look at: $where"
    record "$(systemctl show --property=MainPID --value docker.service)" service
}

start_process() {
    where=$log
    # As many open files as the service of the package allows, or else as this machine does: containers
    # inherit the limit, and Ray needs many.
    # shellcheck disable=SC3045       # Debian's sh has it
    ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -H -n)"
    # In a session of its own, without our lock: it outlives this script and its terminal.
    setsid dockerd >"$log" 2>&1 </dev/null 9>&- &
    record $! process                # setsid becomes dockerd, with the same number and start time
}

start_engine() {
    # DOCKER_HOST or a context may send the client elsewhere: an engine started here would not help.
    address=$(docker context inspect --format '{{.Endpoints.docker.Host}}') || address="an unknown context"
    case $address in
        unix:///var/run/docker.sock | unix:///run/docker.sock | '') ;;
        *) fail 4 "no engine answers at $address, where this user's Docker client looks for it" \
            "start that one, or come back to this machine: unset DOCKER_HOST DOCKER_CONTEXT; docker context use default" ;;
    esac
    say "starting the engine"
    if [ -d /run/systemd/system ]; then start_service; else start_process; fi
    deadline=$(($(date +%s) + seconds))
    until engine_version >/dev/null; do
        if ! start_time "$pid" >/dev/null; then
            why="ended at once"
        elif [ "$(date +%s)" -ge "$deadline" ]; then
            why="does not answer after $seconds s"
        else
            sleep 0.2
            continue
        fi
        if [ "$how" = service ]; then
            journalctl --no-pager --lines=15 --unit=docker.service >&2 || true
        else
            tail -n 15 "$log" >&2
        fi
        stop >/dev/null              # a second try must not find half an engine
        fail 6 "the engine $why" "the end of its log is above; all of it: $where"
    done
}

start() {
    if found=$(status); then
        echo "$found"
        return
    fi
    require_debian "images/engine.sh"    # sets release
    exec 9>"$state.lock"
    flock --wait 900 9 || fail 6 "another images/engine.sh start has run for 15 minutes" \
        "look what it waits for, then run this one again"
    install_engine
    set --
    compose_usable || set -- "$@" docker-compose
    plugin_version buildx >/dev/null || set -- "$@" docker-buildx
    [ $# = 0 ] || install_plugins "$@"
    engine_version >/dev/null || start_engine
    status
}

status() {
    code=0
    if version=$(engine_version); then
        origin=
        if ours; then origin=", started by images/engine.sh (process $pid)"; fi
        echo "engine   $version$origin"
    else
        echo "engine   none answers"
        code=4
    fi
    if compose_usable; then
        echo "compose  $version"
    else
        echo "compose  ${version:-missing}${version:+, too old: 2.20 is needed}"
        code=4
    fi
    if version=$(plugin_version buildx); then
        echo "buildx   $version"
    else
        echo "buildx   missing"
        code=4
    fi
    return "$code"
}

stop() {
    if ! ours; then
        rm -f -- "$state"
        echo "images/engine.sh started no engine that still runs; any other is left alone"
        return
    fi
    [ "$(id -u)" = 0 ] || fail 4 "only root can stop the engine" "run it with sudo"
    # The engine gives its containers up to 15 s to end.
    if [ "$how" = service ]; then
        systemctl stop docker.socket docker.service >&2
    else
        kill -TERM "$pid"
    fi
    deadline=$(($(date +%s) + seconds))
    while ours; do
        [ "$(date +%s)" -lt "$deadline" ] || fail 6 "the engine (process $pid) has not ended after $seconds s" \
            "its log: $log, or: journalctl --unit=docker.service"
        sleep 0.2
    done
    rm -f -- "$state"
    echo "the engine is stopped"
}

[ $# -le 1 ] || set -- many
case ${1:-start} in
    start | status | stop) "${1:-start}" ;;
    *)
        fail 2 "usage: sh images/engine.sh [start|status|stop]" "without an argument it starts the engine"
        ;;
esac
