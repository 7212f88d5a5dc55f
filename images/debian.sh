# shellcheck shell=sh
# What engine.sh, base.sh and machine.sh share: messages, and a private view of the machine's own package sources.
# Sourced, not run. Exit codes are those of saf-env (docs of the commands): 4 means that this machine
# cannot do what is asked, 3 that packages could not be had, 6 that something did not come up.

export LC_ALL=C                      # messages of tools are read, and names are sorted, the same everywhere
PATH=$PATH:/usr/sbin:/sbin           # where Debian keeps dockerd, iptables, debootstrap; not on every PATH

# fail CODE WHAT HINT
fail() {
    echo "error: $2" >&2
    echo "hint: $3" >&2
    exit "$1"
}

say() { echo "$*" >&2; }

# bounded SECONDS COMMAND…: macOS has no timeout(1); there, the command is left to its own limits.
bounded() {
    if command -v timeout >/dev/null 2>&1; then
        timeout --kill-after=5 "$@"
    else
        shift
        "$@"
    fi
}

# The version of the engine that the user's Docker client talks to; fails if none answers.
# `docker version` fails in every version of the client if there is no engine; `docker info` does not.
engine_version() {
    command -v docker >/dev/null 2>&1 || return 1
    bounded 20 docker version --format '{{.Server.Version}}' 2>/dev/null
}

# os_release KEY
os_release() { sed -n "s/^$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p" /etc/os-release 2>/dev/null; }

# require_debian PURPOSE: this is Debian, we are root, and the release has a name.
require_debian() {
    case $(uname -s) in
        Linux) ;;
        Darwin) fail 4 "$1 works on Debian; this is macOS" \
            "install and start Docker Desktop or OrbStack: both bring the engine, Compose and Buildx" ;;
        *) fail 4 "$1 works on Debian; this is $(uname -s)" \
            "install Docker Engine, Compose and Buildx as the documentation of your system says" ;;
    esac
    if [ "$(os_release ID)" != debian ]; then
        os=$(os_release PRETTY_NAME)
        fail 4 "$1 works on Debian; this is ${os:-a Linux without /etc/os-release}" \
            "install Docker Engine, Compose (2.20 or newer) and Buildx as the documentation of your distribution says"
    fi
    [ "$(id -u)" = 0 ] || fail 4 "$1 needs root; this is user $(id -un 2>/dev/null || id -u)" \
        "run it with sudo; to use an engine that runs already, a user must be in the group docker"
    release=$(os_release VERSION_CODENAME)
    [ -n "$release" ] || fail 4 "/etc/os-release names no release (VERSION_CODENAME)" \
        "$1 finds its packages by the release's name: use a release of Debian, not an unnamed snapshot"
}

# install_packages PACKAGE…: with the machine's own apt, as its administrator would.
install_packages() {
    say "installing $*"
    {
        apt-get update -qq &&
            DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
                -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
    } >&2 </dev/null || fail 3 "apt-get could not install $*" \
        "its messages are above; the package sources are in /etc/apt"
}

# private_apt FOLDER RELEASE: makes FOLDER/apt.conf, for APT_CONFIG. An apt that is called with it knows
# the machine's Debian sources with the release's name replaced, and the machine's way to reach and to trust
# them; its lists, cache and pins are its own, so the machine's apt stays as it was.
private_apt() {
    mkdir -p "$1/parts" "$1/lists/partial" "$1/cache/archives/partial" "$1/sources"
    : >"$1/status"
    # How to reach the sources (proxies, certificates) is kept; the hooks of updates are not.
    apt-config dump | sed -n '/^Acquire::IndexTargets/d; /^Acquire::Languages/d; /^Acquire::/p' >"$1/apt.conf"
    # An index that is not signed by a key that this machine trusts is refused, whatever its settings say.
    cat >>"$1/apt.conf" <<CONF
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::Languages "none";
APT::Get::AllowUnauthenticated "false";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "$1/parts";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$1/parts";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$1/sources";
Dir::State::lists "$1/lists";
Dir::State::status "$1/status";
Dir::State::extended_states "$1/extended_states";
Dir::Cache "$1/cache";
CONF
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ ! -e "$file" ] || cat -- "$file"
        echo
    done | rename_list "$release" "$2" >"$1/sources/debian.list"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ ! -e "$file" ] || cat -- "$file"
        echo
    done | rename_sources "$release" "$2" >"$1/sources/debian.sources"
    [ -s "$1/sources/debian.list" ] || [ -s "$1/sources/debian.sources" ] ||
        fail 3 "no package source in /etc/apt has the component main of Debian $release" \
            "add Debian's own sources to /etc/apt/sources.list.d"
    APT_CONFIG=$1/apt.conf apt-get update -qq >"$1/update.log" 2>&1 </dev/null || true
}

# Both take the sources of release FROM that have Debian's component main (so other vendors' fall away), in
# their own format, and give them for release TO. Suites may be named by their age. Backports
# are not wanted; what would switch off the check of signatures is dropped.
# shellcheck disable=SC2016  # the dollars are awk's
awk_suite='
    function renamed(suite) {
        if (suite !~ "^(" from "|(old)*stable|testing)(-updates|-security)?$") return ""
        sub(/^[^-]*/, to, suite)
        return suite
    }'

# rename_list FROM TO: one-line format.
# shellcheck disable=SC2016
rename_list() {
    awk -v from="$1" -v to="$2" "$awk_suite"'
        { sub(/#.*/, "") }
        $1 == "deb" {
            line = $0; options = ""
            if (match(line, /\[[^]]*\]/)) {
                options = substr(line, RSTART, RLENGTH) " "
                line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
                gsub(/(trusted|allow-insecure|allow-weak|allow-downgrade-to-insecure)[+-]?=[^] ]*/, "", options)
                if (options ~ /^\[ *\] $/) options = ""
            }
            n = split(line, word)
            for (i = 4; i <= n; i++)
                if (word[i] == "main" && renamed(word[3]) != "")
                    print "deb", options word[2], renamed(word[3]), "main"
        }'
}

# rename_sources FROM TO: deb822 format. A field goes on in the lines that begin with a blank.
# shellcheck disable=SC2016
rename_sources() {
    awk -v from="$1" -v to="$2" "$awk_suite"'
        function finish(   i, n, word, suites) {
            n = split(field["suites"], word)
            for (i = 1; i <= n; i++)
                if (renamed(word[i]) != "") suites = suites " " renamed(word[i])
            if (suites != "" && field["uris"] != "" && (" " field["types"] " ") ~ /[ \t\n]deb[ \t\n]/ &&
                (" " field["components"] " ") ~ /[ \t\n]main[ \t\n]/ &&
                field["enabled"] !~ /^[ \t]*(no|false|off|0|without|disable)[ \t]*$/) {
                print "Types: deb\nURIs:" field["uris"] "\nSuites:" suites "\nComponents: main"
                if (field["signed-by"] != "") print "Signed-By:" field["signed-by"]
                print ""
            }
            delete field; name = ""
        }
        /^#/ { next }
        /^[ \t]*$/ { finish(); next }
        /^[ \t]/ { field[name] = field[name] "\n" $0; next }
        { name = tolower(substr($0, 1, index($0, ":") - 1)); field[name] = substr($0, index($0, ":") + 1) }
        END { finish() }'
}
