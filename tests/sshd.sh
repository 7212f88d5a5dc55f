#!/bin/sh
# An OpenSSH server, further login shells (fish, zsh) and a clock that can be wrong (libfaketime) for the tests
# of hosts over SSH, on a plain Debian machine, from the machine's own package sources:
#
#     sh tests/sshd.sh
#
# The tests start the server themselves, on loopback, with keys and settings of their own. So the machine's own
# SSH service is neither started nor enabled; one that was installed before is left as it is.
set -eu

# shellcheck source=images/debian.sh
. "$(dirname -- "$0")/../images/debian.sh"

policy=/usr/sbin/policy-rc.d         # asked by Debian's packages before they start a service; 101 forbids it

restore_policy() {
    rm -f -- "$policy"
    [ ! -e "$policy.saf-env" ] || mv -- "$policy.saf-env" "$policy"
}

set --
command -v sshd >/dev/null 2>&1 || set -- "$@" openssh-server
command -v fish >/dev/null 2>&1 || set -- "$@" fish
command -v zsh >/dev/null 2>&1 || set -- "$@" zsh
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || set -- "$@" libfaketime
if [ $# = 0 ]; then
    say "sshd, fish, zsh and libfaketime are there already"
    exit
fi
require_debian "tests/sshd.sh"
trap 'exit 130' INT
trap 'exit 143' TERM HUP
[ ! -e "$policy" ] || [ -e "$policy.saf-env" ] || mv -- "$policy" "$policy.saf-env"
trap restore_policy EXIT
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"
install_packages "$@"
case " $* " in
    *" openssh-server "*) update-rc.d ssh disable >&2 ;;   # nor at the next boot
esac
