#!/bin/sh
# Runs in the build of the image: lets uv install the one interpreter of the downloads table in
# /opt/saf-env/python, where uv checks its digest, takes away what no node needs, and compiles the rest.
set -eu
umask 022

fail() {
    echo "saf-env: error: $1"
    exit 1
}

settings=/tmp/reach/settings
# shellcheck source=/dev/null
[ ! -s $settings ] || . $settings
export PYTHONHASHSEED=0 HOME=/tmp

# What wheels are chosen for (saf_env/platforms.py): an older system cannot load them.
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || fail "the base image has no glibc; it has to be Debian 12 or like it"
has=${libc#glibc }
newer=$(printf '%s\n' "$GLIBC_MIN" "$has" | sort -V | tail -n 1)
[ "$newer" = "$has" ] || fail "the base image has glibc $has; the locked packages need $GLIBC_MIN or newer"

key=$(cat /tmp/build/key)
echo "saf-env: installing the interpreter $key"
root=/opt/saf-env/python
export UV_PYTHON_INSTALL_DIR=$root UV_PYTHON_DOWNLOADS=manual UV_PYTHON_DOWNLOADS_JSON_URL=/tmp/build/downloads.json
export UV_CACHE_DIR=/tmp/cache XDG_CONFIG_HOME=/tmp/reach/user XDG_CONFIG_DIRS=/tmp/reach/system
cd /tmp
/tmp/build/uv python install --no-bin --no-progress "$key"

home=$root/$key
minor=$(cd "$home/bin" && ls python3.* | grep -E '^python3\.[0-9]+$')
python=$home/bin/$minor
"$python" -I -S -c '' || fail "the interpreter does not run on this base image: is it built for a newer glibc than $has?"

# uv's own files, and the parts of a whole Python that are for people and compilers.
find $root -mindepth 1 -maxdepth 1 ! -path "$home" -exec rm -rf {} +
ln -s "$key/bin/$minor" $root/current
library=$home/lib/$minor
find "$home/bin" -mindepth 1 ! -name 'python' ! -name 'python3' ! -name "$minor" -delete
rm -rf "$home/include" "$home/share/man" "$home/lib/pkgconfig" "$home"/lib/tcl[0-9]* "$home"/lib/tk[0-9]* \
    "$home"/lib/itcl[0-9]* "$home"/lib/thread[0-9]* "$home"/lib/libtcl* "$home"/lib/libtk*
for name in test idlelib turtledemo turtle.py tkinter lib2to3 sitecustomize.py usercustomize.py EXTERNALLY-MANAGED; do
    rm -rf "${library:?}/$name"
done
rm -rf "$library"/config-* "$library"/site-packages/* "$library"/lib-dynload/_tkinter.*
find "$library" -depth \( -name __pycache__ -o -name tests \) -type d -exec rm -rf {} +

# Bytecode by the hash of its source, which is never looked at again: the same bytes at every build
# (the default has the time in it), and valid whatever the times of the files are.
echo "saf-env: compiling its library"
"$python" -S -m compileall -q -f -j 0 --invalidation-mode unchecked-hash "$library" >/tmp/compile.log 2>&1 ||
    { cat /tmp/compile.log; fail "the interpreter's own library does not compile"; }

# The user of the image. No password, no shell to log in with; its home is what every node has.
mkdir /opt/saf-env/accounts
cp -p /etc/passwd /etc/group /opt/saf-env/accounts
cd /opt/saf-env/accounts
grep -q '^saf:' passwd || echo 'saf:x:10001:10001:saf-env:/tmp:/usr/sbin/nologin' >>passwd
grep -q '^saf:' group || echo 'saf:x:10001:' >>group

# Where a container has the volume of Ray's sessions: a new volume takes its mode, so that whoever the
# container runs as can write in it.
mkdir -p /opt/saf-env/volumes/ray
chmod 1777 /opt/saf-env/volumes/ray

find /opt/saf-env -exec touch -h -d @315532800 {} +      # 1980: the first year that a zip file can hold
