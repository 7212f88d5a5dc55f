#!/bin/sh
# Runs a command of one of saf-env's own environments, made first if need be:
#
#     sh saf_env/bootstrap.sh tool saf-env up
#     sh saf_env/bootstrap.sh dev  pytest
#
# An environment keeps a copy of all that it was made from. As long as that copy is equal to the
# files of the project nothing is done, and no Python is started to find out; else bootstrap.py
# makes the environment anew.
set -eu

cd -- "${0%/*}/.."
name=$1
command=$2
shift 2

case $name in
    tool) lock=lockfiles/saf-env.txt ;;
    dev) lock=lockfiles/saf-env-dev.txt ;;
    *) echo "error: there is no environment '$name'" >&2; exit 2 ;;
esac
set -- "$name" "$command" "$@"

ready() {
    # bin/python and bin/uv are links: what they point to may have been removed.
    [ -x ".saf/$name/bin/python" ] && [ -x ".saf/$name/bin/uv" ] &&
        cat saf_env/uv-pin.txt saf_env/bootstrap.py "$lock" | cmp -s - ".saf/$name/inputs"
}

if ! ready; then
    if ! command -v python3 >/dev/null 2>&1; then
        echo "error: python3 was not found on PATH" >&2
        echo "hint: install Python 3.9 or newer with pip; any will do, it only fetches uv" >&2
        exit 3
    fi
    python3 -I saf_env/bootstrap.py "$name" "$lock"
fi
shift 2
exec ".saf/$name/bin/$command" "$@"
