"""What a node actually is: facts as JSON, gathered on the node, changing nothing there.

One file, standard library only, Python 3.9 or newer, because it runs where saf-env is not
installed: by :mod:`saf_env.transports.script` under the node's own Python, or inside a Ray worker,
where this source is executed and :func:`gather` called. ``probe.py --interpreter`` looks
at the interpreter only. Nothing is judged here; that is :mod:`saf_env.preflight`.

In comes a request (see :func:`gather`), out go ``{"schema": 1, "facts": {...}, "unknown": {...}}``:
``unknown`` says for each fact that could not be had, why. A token or the value of a variable that
may hold one is never among the facts.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import sysconfig

TYPE_CHECKING = False
if TYPE_CHECKING:  # the module typing is slow to import, and only its names are needed
    from collections.abc import Mapping
    from typing import Any

SCHEMA = 1
MARKER = "saf-env.json"
MANIFEST = "saf-env-files.json"
PYTHON_MANIFEST = "saf-env-python.json"
PACK = "saf-env-pack.json"
MARK_VARIABLE = "SAF_ENV_NODE"
CONTAINER_VARIABLE = "SAF_ENV_CONTAINER"
HOSTS = "/etc/hosts"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
_NAME_SECONDS = 4.0  # a name service that is not reached answers after 5 s or more
OWN_FILES = (MARKER, MANIFEST, PYTHON_MANIFEST)
_FINDERS = ".DS_Store"  # macOS puts it into every folder that somebody looks at
_CACHE = "/__pycache__"
_LISTEN = "0A"  # TCP_LISTEN as /proc/net/tcp writes it (include/net/tcp_states.h)
_LISTED = 20  # names of files shown for one fact; the count is always exact
_FIREWALL = "/usr/libexec/ApplicationFirewall/socketfilterfw"
_SYSCTL = "/usr/sbin/sysctl"
# Reached by the default route, and by nobody: it is for documentation only (RFC 5737).
_ELSEWHERE = "192.0.2.1"
# Tailscale's command: of a package, of Homebrew, and in the bundle of its application for macOS.
_TAILSCALE = (
    "/usr/bin/tailscale",
    "/usr/local/bin/tailscale",
    "/opt/homebrew/bin/tailscale",
    "/Applications/Tailscale.app/Contents/MacOS/Tailscale",
)


# The interpreter


def base_interpreter() -> str:
    """The real path of the interpreter's binary, below all environments and links."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def shared_library(binary: bytes) -> str:
    """The path of the ``libpython`` that the interpreter's binary loads, or ``""``.

    A build may come with a shared library that its own binary does not use (Debian's does), so
    what counts is whether the binary names it.
    """
    wanted = ("LIBDIR", "PYTHONFRAMEWORKPREFIX", "INSTSONAME", "LDLIBRARY")
    libdir, framework, *names = (str(v or "") for v in sysconfig.get_config_vars(*wanted))
    for name in names:
        if not os.path.basename(name) or os.path.basename(name).encode() + b"\0" not in binary:
            continue
        for folder in (os.path.join(sys.base_prefix, "lib"), libdir, framework):
            path = os.path.join(folder, name)
            if folder and os.path.isfile(path):
                return os.path.realpath(path)
    return ""


def interpreter_digest() -> str:
    """SHA-256 over the interpreter's binary and, when it loads one, then its shared library.

    Of an interpreter that saf-env has packed, the digest that it had before it was packed.
    """
    return _interpreter_files()[0]


def _interpreter_files() -> tuple[str, str]:
    """The digest, and the path of the shared library."""
    with open(base_interpreter(), "rb") as file:
        binary = file.read()
    digest = hashlib.sha256(binary)
    library = shared_library(binary)
    if library:
        with open(library, "rb") as file:
            digest.update(file.read())
    return _digest_before_packing(library) or digest.hexdigest(), library


def _digest_before_packing(library: str) -> str:
    """What the pack that the interpreter lies in says that it was; empty without one.

    Packing changes where a binary looks for its libraries, and so its bytes. The pack is believed
    only while each of its binaries has the digest that it noted.
    """
    binary = base_interpreter()
    root = os.path.dirname(os.path.dirname(binary))
    note = _read_json(os.path.join(root, PACK)) or {}
    known = note.get("files")
    own = {os.path.relpath(path, root) for path in (binary, library) if path}
    if not isinstance(known, dict) or not own <= known.keys():
        return ""
    try:
        sound = all(file_digest(os.path.join(root, n)) == known[n] for n in known)
    except OSError:
        return ""
    return str(note.get("interpreter_digest", "")) if sound else ""


def interpreter(_request: dict[str, Any] | None = None) -> dict[str, Any]:
    """Who the running interpreter is."""
    v = sys.version_info
    digest, library = _interpreter_files()
    level = {"final": "", "alpha": f"a{v.serial}", "beta": f"b{v.serial}"}
    return {
        "implementation": sys.implementation.name,
        "version": f"{v.major}.{v.minor}.{v.micro}" + level.get(v.releaselevel, f"rc{v.serial}"),
        "build": " ".join(sys.version.split()),
        "machine": os.uname().machine,
        "sys_platform": sys.platform,
        "executable": base_interpreter(),
        "library": library,
        "stdlib": os.path.dirname(os.__file__),
        "digest": digest,
        "free_threaded": "t" in sys.abiflags,
        "debug": "d" in sys.abiflags,
        "translated": _translated(),
    }


def _translated() -> bool:
    """Whether this process is one for Intel, which a Mac translates (Rosetta)."""
    if sys.platform != "darwin":
        return False
    import ctypes

    answer, size = ctypes.c_int(0), ctypes.c_size_t(4)
    known = ctypes.CDLL(None).sysctlbyname(
        b"sysctl.proc_translated", ctypes.byref(answer), ctypes.byref(size), None, 0
    )
    return known == 0 and answer.value == 1  # a Mac without Rosetta does not know the name


# The environment: the folder that the running interpreter belongs to


def _prefix() -> str:
    """The environment's folder; ``sys.prefix`` does not say under ``-S`` before Python 3.14."""
    found = os.path.dirname(os.path.dirname(sys.executable))
    found = sys.prefix if sys.prefix != sys.base_prefix else found
    if not os.path.isfile(os.path.join(found, "pyvenv.cfg")):
        raise ValueError("the interpreter does not belong to an environment")
    return found


def _site_packages() -> str:
    major, minor = sys.version_info[:2]
    return os.path.join(_prefix(), "lib", f"python{major}.{minor}", "site-packages")


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def environment(_request: dict[str, Any]) -> dict[str, Any]:
    """The environment's folder, and the marker that saf-env left in it (None: there is none)."""
    prefix = _prefix()
    with open(os.path.join(prefix, "pyvenv.cfg"), encoding="utf-8") as file:
        lines = [line.partition("=") for line in file]
    settings = {key.strip(): value.strip() for key, _, value in lines}
    return {
        "path": prefix,
        "marker": _read_json(os.path.join(prefix, MARKER)),
        "system_site": settings.get("include-system-site-packages", "").lower() != "false",
    }


def packages(_request: dict[str, Any]) -> list[Any]:
    """Name (normalised) and version of every installed distribution, as pairs."""
    return distributions(_site_packages())


def distributions(site: str) -> list[Any]:
    """The same of one folder; a distribution is known by its folder of metadata."""
    found = []
    for name in sorted(os.listdir(site)):
        stem, suffix = os.path.splitext(name)
        if suffix in (".dist-info", ".egg-info", ".egg-link", ".egg"):
            project, _, version = stem.partition("-")
            found.append([project.lower().replace("_", "-").replace(".", "-"), version])
    return found


def ray_build(_request: dict[str, Any]) -> dict[str, Any]:
    """The commit that the installed Ray was built from, read as text; ``""`` if it has none."""
    import re

    try:
        with open(os.path.join(_site_packages(), "ray", "_version.py"), encoding="utf-8") as file:
            text = file.read()
    except OSError:
        text = ""
    found = re.search(r"""^commit = ["']([0-9a-f]{40})["']""", text, re.MULTILINE)
    return {"commit": found[1] if found else ""}


def environments(request: dict[str, Any]) -> list[Any]:
    """Folder of each environment of this host, and digest of the requirements it was made from."""
    found = []
    for name in sorted(os.listdir(request["envs"])) if os.path.isdir(request["envs"]) else ():
        marker = _read_json(os.path.join(request["envs"], name, MARKER)) or {}
        if "environment_sha256" in marker:
            found.append([name, str(marker["environment_sha256"])])
    return found


def isolation(_request: dict[str, Any]) -> dict[str, Any]:
    """What would run at the interpreter's start that is not in the lock.

    ``startup`` are files of the environment that nothing installed explains, ``base`` those in the
    interpreter's own standard library.
    """
    site, stdlib = _site_packages(), os.path.dirname(os.__file__)
    hooks = ("sitecustomize", "usercustomize")
    startup = [n for n in os.listdir(site) if n.endswith(".pth") or n.split(".")[0] in hooks]
    if startup:
        known = _manifest(_prefix()).get(os.path.relpath(site, _prefix()), [0, 0, {}])[2]
        startup = sorted(name for name in startup if name not in known)
    base = [n for n in sorted(os.listdir(stdlib)) if n.split(".")[0] in hooks]
    return {
        "startup": [os.path.join(site, name) for name in startup],
        "base": [os.path.join(stdlib, name) for name in base],
    }


def _manifest(root: str) -> dict[str, Any]:
    """Folder to [ctime_ns, inode, {file: [size, ctime_ns, inode, sha256]}] of the environment.

    A file that its owner may run has one more: 1.
    """
    folders: dict[str, Any] = (_read_json(os.path.join(root, MANIFEST)) or {}).get("folders", {})
    return folders


def file_digest(path: str) -> str:
    """SHA-256 of a file; of the target's name for a link."""
    if os.path.islink(path):
        return hashlib.sha256(b"link:" + os.fsencode(os.readlink(path))).hexdigest()
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def digests(paths: list[str], sizes: list[int]) -> dict[str, str | None]:
    """SHA-256 by path (None: unreadable), in two threads, big files first, small ones in lots."""
    import threading

    order = sorted(range(len(paths)), key=sizes.__getitem__, reverse=True)
    big = sum(size > 1 << 20 for size in sizes)
    small = range(big, len(order), 64)
    lots = iter([[i] for i in order[:big]] + [order[i : i + 64] for i in small])
    found: dict[str, str | None] = {}

    def work() -> None:
        for lot in lots:
            for i in lot:
                try:
                    found[paths[i]] = file_digest(paths[i])
                except OSError:
                    found[paths[i]] = None

    helper = threading.Thread(target=work)
    if len(paths) > 64:
        helper.start()
    work()
    if helper.ident is not None:
        helper.join()
    return found


def files(request: dict[str, Any]) -> dict[str, Any]:
    """Files of the environment against the manifest, written when all of them were verified.

    A file whose size, change time and inode are those of the manifest is taken as unchanged; any
    other is hashed, and with ``deep`` every file is. The change time cannot be set by a program,
    unlike the modification time. A folder whose change time is the same has no new file.
    Bytecode may be missing: Python makes it again. A program that may not be run is changed.
    """
    prefix, deep = _prefix(), bool(request.get("deep"))
    return _compared(prefix, os.path.join(prefix, MANIFEST), deep, _strangers)


def python_files(request: dict[str, Any]) -> dict[str, Any]:
    """The same of the interpreter's standard library, as it was when the environment was made."""
    stdlib, manifest = os.path.dirname(os.__file__), os.path.join(_prefix(), PYTHON_MANIFEST)
    return {**library(stdlib, manifest, deep=bool(request.get("deep"))), "path": stdlib}


def library(stdlib: str, manifest: str, *, deep: bool = False) -> dict[str, Any]:
    """The same of any standard library, against a manifest that was written of it."""
    return _compared(stdlib, manifest, deep, _strange_modules)


def _compared(root: str, manifest: str, deep: bool, strangers: Any) -> dict[str, Any]:
    with open(manifest, "rb") as file:
        raw = file.read()
    folders = json.loads(raw)["folders"]
    missing, foreign, changed, doubtful, count = [], [], [], {}, 0
    for folder, (changed_at, inode, known) in folders.items():
        base = os.path.join(root, folder) if folder else root
        count += len(known)
        try:  # only the environment itself may be a link, to another disk
            seen = os.lstat(base) if folder else os.stat(base)
            handle = os.open(base, os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if folder else 0))
        except OSError as error:
            if not (isinstance(error, FileNotFoundError) and folder.endswith(_CACHE)):
                missing.append(folder)
            continue
        if (seen.st_ctime_ns, seen.st_ino) != (changed_at, inode):
            foreign += strangers(base, folder, known, folders)
        for name, (size, since, number, sha256, *runs) in known.items():
            try:
                seen = os.stat(name, dir_fd=handle, follow_symlinks=False)
            except OSError:
                if not (folder.endswith(_CACHE) and name.endswith(".pyc")):
                    missing.append(os.path.join(folder, name))
                continue
            if deep or (seen.st_size, seen.st_ctime_ns, seen.st_ino) != (size, since, number):
                kind, kept = stat.S_IFMT(seen.st_mode), seen.st_mode & 0o100 or not runs
                if kept and kind in (stat.S_IFREG, stat.S_IFLNK):
                    doubtful[base + "/" + name] = (sha256, seen.st_size)
                else:
                    changed.append(os.path.join(folder, name))
        os.close(handle)
    actual = digests(list(doubtful), [size for _, size in doubtful.values()])
    wrong = [p for p, (sha256, _) in doubtful.items() if actual[p] != sha256]
    changed += [os.path.relpath(p, root) for p in wrong if not _sound_bytecode(p)]
    return {
        "files": count,
        "hashed": len(doubtful),
        "manifest_sha256": hashlib.sha256(raw).hexdigest(),
        "changed": [len(changed), sorted(changed)[:_LISTED]],
        "missing": [len(missing), sorted(missing)[:_LISTED]],
        "foreign": [len(foreign), sorted(foreign)[:_LISTED]],
    }


def _strangers(base: str, folder: str, known: dict[str, Any], folders: dict[str, Any]) -> list[Any]:
    """Entries of a folder that the manifest does not have; bytecode of a known source is none."""
    found = []
    for name in os.listdir(base):
        path = os.path.join(folder, name)
        own = name == _FINDERS or (not folder and name in OWN_FILES)
        if own or name in known or path in folders:
            continue
        if name == "__pycache__":
            found += _strangers(os.path.join(base, name), path, {}, folders)
        elif not _sound_bytecode(os.path.join(base, name)):
            found.append(path)
    return found


def _strange_modules(base: str, folder: str, known: dict[str, Any], folders: Any) -> list[Any]:
    """The same of the standard library."""
    paths = [(name, os.path.join(folder, name)) for name in os.listdir(base) if of_library(name)]
    return [path for name, path in paths if name not in known and path not in folders]


def of_library(name: str) -> bool:
    """Whether an entry of the standard library's folders is one that nodes import from.

    Bytecode is not: Python makes it from the sources, whenever it may. Nor are packages installed
    for the interpreter itself, which environments do not see, the library's own tests, and what
    other programs are linked with.
    """
    others = ("__pycache__", "site-packages", "dist-packages", "test", _FINDERS)
    return name not in others and not name.startswith("config-")


def _sound_bytecode(path: str) -> bool:
    """Whether ``path`` is a ``.pyc`` that its source compiles to, or one this interpreter ignores.

    Python rewrites bytecode whenever a source's time changed, so its bytes may differ rightfully.
    The source itself is judged as a file of its own.
    """
    folder, name = os.path.split(path)
    if not (folder.endswith("/__pycache__") and name.endswith(".pyc")) or os.path.islink(path):
        return False
    tag = f".{sys.implementation.cache_tag}"
    if tag not in name:
        return True
    import marshal

    stem, _, suffix = name[: -len(".pyc")].partition(tag)
    source = os.path.join(os.path.dirname(folder), stem + ".py")
    level = int(suffix[len(".opt-") :]) if suffix.startswith(".opt-") else 0
    try:
        with open(path, "rb") as file:
            code = marshal.loads(file.read()[16:])
        with open(source, "rb") as file:
            text = file.read()
        return bool(compile(text, source, "exec", dont_inherit=True, optimize=level) == code)
    except (OSError, ValueError, EOFError, TypeError, SyntaxError):
        return False


# The machine


def platform(_request: dict[str, Any]) -> dict[str, Any]:
    """Operating system, architecture and CPUs."""
    import time

    name = os.uname()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "sys_platform": sys.platform,
        "machine": name.machine,
        "system": name.sysname + " " + name.release,
        "version": _system_version(),
        "translated": _translated(),
        "hostname": name.nodename,
        "cpus": usable,
        "uid": os.getuid(),
        "time": time.time(),
    }


def _system_version() -> str:
    """What wheels are built for: ``macOS 14.5`` or ``glibc 2.36``; ``""`` of another C library."""
    if sys.platform == "darwin":
        return "macOS " + _output(["/usr/bin/sw_vers", "-productVersion"]).strip()
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        return ""


def memory(_request: dict[str, Any]) -> dict[str, Any]:
    """Bytes of memory in all and available, a control group's limit respected."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "darwin":
        return {"total": total, "available": vm_stat_available(_output(["/usr/bin/vm_stat"]))}
    with open("/proc/meminfo", encoding="ascii") as file:
        rows = dict(line.split(":", 1) for line in file)
    available = int(rows["MemAvailable"].split()[0]) * 1024
    for limit, used in _cgroup_memory():
        total, available = min(total, limit), min(available, limit - used)
    return {"total": total, "available": available}


def _cgroup_memory() -> list[Any]:
    """Limit and use in bytes of every control group above this process that has a limit."""
    group = "/"
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            if line.startswith("0::"):
                group = line[3:].strip()
    parts = group.strip("/").split("/")
    folders = ["/sys/fs/cgroup/" + "/".join(parts[:n]) for n in range(len(parts) + 1)]
    names = [(f + "/memory.max", f + "/memory.current") for f in folders]
    old = "/sys/fs/cgroup/memory/memory."
    found = []
    for limit, used in [*names, (old + "limit_in_bytes", old + "usage_in_bytes")]:
        try:
            with open(limit, encoding="ascii") as first, open(used, encoding="ascii") as second:
                found.append((int(first.read()), int(second.read())))
        except (OSError, ValueError):  # no such group, or the limit is "max"
            continue
    return found


def vm_stat_available(text: str) -> int:
    """Bytes that macOS can hand out, from the output of ``vm_stat``."""
    page = int(text.partition("page size of")[2].split(maxsplit=1)[0])
    rows = dict(line.split(":", 1) for line in text.splitlines()[1:] if ":" in line)
    kinds = ("Pages free", "Pages inactive", "Pages speculative", "Pages purgeable")
    return page * sum(int(rows[k].strip(" .")) for k in kinds if k in rows)


def swap(_request: dict[str, Any]) -> dict[str, Any]:
    """Bytes of swap space, in all and used; a Mac makes more when it needs more."""
    if sys.platform == "darwin":
        return swap_usage(_output([_SYSCTL, "-n", "vm.swapusage"]))
    with open("/proc/meminfo", encoding="ascii") as file:
        rows = dict(line.split(":", 1) for line in file)
    total, free = (int(rows[name].split()[0]) * 1024 for name in ("SwapTotal", "SwapFree"))
    return {"total": total, "used": total - free}


def swap_usage(text: str) -> dict[str, Any]:
    """The same from macOS's ``sysctl vm.swapusage``, whose numbers are as the locale has them."""
    import re

    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    found = {
        name: int(float(number.replace(",", ".")) * units[unit])
        for name, number, unit in re.findall(r"(\w+) = ([\d.,]+)([KMG])", text)
    }
    return {name: found[name] for name in ("total", "used")}


def disk(request: dict[str, Any]) -> list[Any]:
    """Bytes in all and free, of the disks that the request's ``folders`` are or will be on."""
    found = []
    for purpose, folder in request["folders"].items():
        path = os.path.abspath(folder)
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        seen = os.statvfs(path)
        sizes = {"total": seen.f_blocks * seen.f_frsize, "free": seen.f_bavail * seen.f_frsize}
        found.append({"purpose": purpose, "path": folder, **sizes})
    return found


def shm(_request: dict[str, Any]) -> dict[str, Any]:
    """Bytes of ``/dev/shm``; zeros where there is none, as on macOS."""
    if not os.path.isdir("/dev/shm"):
        return {"total": 0, "free": 0}
    seen = os.statvfs("/dev/shm")
    return {"total": seen.f_blocks * seen.f_frsize, "free": seen.f_bavail * seen.f_frsize}


def nofile(_request: dict[str, Any]) -> dict[str, Any]:
    """How many files a process may have open, soft and hard limit."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    return {"soft": None if soft == endless else soft, "hard": None if hard == endless else hard}


def temp_dir(request: dict[str, Any]) -> dict[str, Any]:
    """The node's temp dir, or, while it does not exist, the folder that it will be made in.

    A native node is started in it, so ``modules`` in it would be taken for packages.
    """
    path = request["temp_dir"]
    exists = os.path.lexists(path)
    place = path
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    seen = os.lstat(place)
    return {
        "path": path,
        "exists": exists,
        "place": place,
        "folder": os.path.isdir(place),
        "link": exists and os.path.islink(path),
        "mode": seen.st_mode & 0o7777,
        "owner": seen.st_uid,
        "uid": os.getuid(),
        "writable": os.access(place, os.W_OK | os.X_OK),
        "modules": _modules(path),
    }


def _modules(folder: str) -> list[str]:
    """What would be imported from a folder in place of an installed module."""
    from importlib.machinery import all_suffixes

    if not os.path.isdir(folder):
        return []
    inits = ["__init__" + suffix for suffix in all_suffixes()]
    found = []
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        inside = any(os.path.lexists(os.path.join(path, init)) for init in inits)
        if inside or name.endswith(tuple(all_suffixes())):
            found.append(path)
    return found


def uv(request: dict[str, Any]) -> dict[str, Any]:
    """The version of the uv binary that would be used."""
    return {"path": request["uv"], "version": _output([request["uv"], "--version"]).split()[1]}


def _output(argv: list[str]) -> str:
    return str(_asked(argv, 20.0, check=True)[1])


def _asked(argv: list[str], seconds: float, *, check: bool = False, **more: str) -> tuple[Any, ...]:
    """Exit code, standard output and error of a command, with variables besides our own."""
    import subprocess

    null, environ = subprocess.DEVNULL, {**os.environ, **more}
    run = subprocess.run(
        argv, stdin=null, capture_output=True, timeout=seconds, check=check, env=environ
    )
    return run.returncode, *(text.decode("utf-8", "replace") for text in (run.stdout, run.stderr))


def variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """The variables that bear on Ray, Python and proxies; None for a value that may be secret."""
    secret = ("TOKEN", "PASSWORD", "SECRET", "KEY")
    found: dict[str, str | None] = {}
    for name, value in sorted(environ.items()):
        if name.startswith("RAY_") or name.lower() == "no_proxy":
            hidden = any(word in name for word in secret) and not name.endswith("_PATH")
            found[name] = None if hidden else value
        elif name.startswith("PYTHON") or name.lower() in PROXIES:
            found[name] = None
    return found


def token(request: dict[str, Any]) -> dict[str, Any]:
    """The token file: who may read it, what is wrong with its form, its digest, never the token."""
    path = request["token"]
    found = {"path": path, "present": os.path.lexists(path), "uid": os.getuid()}
    if not found["present"]:
        return found
    seen = os.lstat(path)
    found.update(mode=seen.st_mode & 0o7777, owner=seen.st_uid, file=os.path.isfile(path))
    found.update(link=os.path.islink(path), problems=[], sha256="")
    if not found["file"]:
        return found
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 16)
    except OSError as error:
        return {**found, "problems": [f"it cannot be read: {error.strerror}"]}
    problems = []
    if not text.strip():
        problems.append("it is empty")
    elif text.strip() != text:
        problems.append("there is white space or a newline around it")
    if text.strip() and len(text.strip()) < 32:
        problems.append("it is shorter than 32 characters")
    if not all(33 <= byte < 127 for byte in text.strip()):
        problems.append("it holds other characters than visible ASCII")
    return {**found, "problems": problems, "sha256": hashlib.sha256(text).hexdigest()}


# Ports and processes


def ports(request: dict[str, Any]) -> dict[str, Any]:
    """Which of the request's ports cannot be listened on, and who holds them.

    A port is tried at the request's address and at all addresses, as Ray opens it; one that comes
    with an address of its own, as a container's published ones do, at that alone.
    """
    import errno
    import socket

    wanted, held, unusable = request["address"], {}, ""
    for name, number, *own in request["ports"]:
        for address in own or (wanted, "::" if ":" in wanted else ""):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as trial:
                # As Ray does: a connection in TIME_WAIT does not hold its port.
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    trial.bind((address, number))
                except OSError as error:
                    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
                        unusable = str(error.strerror)
                    else:
                        held[number] = {"port": number, "name": name, "error": error.strerror}
    owners = _port_owners(set(held)) if held else {}
    for number, pid in owners.items():
        held[number].update(_process(pid))
    return {"address": wanted, "address_error": unusable, "held": list(held.values())}


def _sockets(*, listening: bool = False) -> dict[str, int]:
    """Inode to local port of every TCP socket of this host, or every listening one (Linux)."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        used = [row for row in rows if row[9] != "0" and (row[3] == _LISTEN or not listening)]
        found.update({row[9]: int(row[1].rsplit(":", 1)[1], 16) for row in used})
    return found


def _open_sockets(pid: int) -> list[Any]:
    """Inodes of the sockets that a process has open; none when we may not look."""
    folder = f"/proc/{pid}/fd"
    found = []
    try:
        for name in os.listdir(folder):
            target = os.readlink(folder + "/" + name)
            if target.startswith("socket:["):
                found.append(target[8:-1])
    except OSError:
        pass
    return found


def _pids() -> list[Any]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _port_owners(wanted: set[int]) -> dict[int, int]:
    """Port to process id, for the ports in ``wanted`` whose owner we may see."""
    if not os.path.isdir("/proc/self"):
        return {}
    inodes = {inode: port for inode, port in _sockets().items() if port in wanted}
    return {inodes[i]: pid for pid in _pids() for i in _open_sockets(pid) if i in inodes}


def _mark(pid: int) -> str:
    """Our mark in a process's environment, ``""`` without one or when we may not look."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark_in(file.read())
    except OSError:
        return ""


def mark_in(environ: bytes) -> str:
    """Our mark in an environment as ``/proc`` has it.

    That of a process in one of our containers, which a Linux host sees like its own, has no run.
    """
    variables = environ.split(b"\0")
    for name, end in ((MARK_VARIABLE, ""), (CONTAINER_VARIABLE, "/")):
        start = name.encode() + b"="
        for variable in variables:
            if variable.startswith(start):
                return variable[len(start) :].decode("utf-8", "replace") + end
    return ""


def _process(pid: int) -> dict[str, Any]:
    """A process's id, name and our mark on it.

    Ray's agents and workers write their title over their environment; the process that leads their
    session (``ray start``) still has the mark.
    """
    found = {"pid": pid, "command": "", "mark": _mark(pid)}
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            found["command"] = file.read().strip()
        found["mark"] = found["mark"] or _mark(os.getsid(pid))
    except OSError:
        pass
    return found


def ray_processes(request: dict[str, Any]) -> dict[str, Any]:
    """Processes with this node's mark (``ours``), and raylets and GCS servers without it.

    Those of other nodes of this cluster are ``kin``, all that are not of this cluster ``others``.
    """
    cluster = request["cluster_id"] + "/"
    # Looked for once, also for the nodes beside this one.
    found = request["processes"] = request.get("processes") or _processes()
    found = [process for process in found if process["pid"] != os.getpid()]
    ours = [p for p in found if p["mark"].startswith(cluster + request["node"] + "/")]
    rays = [p for p in found if p["command"] in ("raylet", "gcs_server")]
    others = [p for p in rays if not p["mark"].startswith(cluster)]
    kin = [p for p in rays if p not in others and p not in ours]
    sockets = _sockets(listening=True) if others else {}
    for process in others:
        inodes = _open_sockets(process["pid"])
        process["ports"] = sorted({sockets[inode] for inode in inodes if inode in sockets})
    return {"ours": ours, "kin": kin, "others": others}


def _processes() -> list[Any]:
    if os.path.isdir("/proc/self"):
        return [_process(pid) for pid in _pids()]
    return mac_processes(_output(["/bin/ps", "-axEww", "-o", "pid=,command="]))


def mac_processes(text: str) -> list[Any]:
    """Processes from the output of macOS's ``ps -E``: id, the program's name, our mark."""
    found = []
    for line in text.splitlines():
        pid, _, command = line.strip().partition(" ")
        words = command.split()
        start = MARK_VARIABLE + "="
        marks = [word[len(start) :] for word in words if word.startswith(start)]
        name = os.path.basename(words[0]) if words else ""
        found.append({"pid": int(pid), "command": name, "mark": marks[0] if marks else ""})
    return found


def names(request: dict[str, Any]) -> dict[str, Any]:
    """What the request's ``names`` mean here.

    ``addresses`` has those of each, none for one that the name service does not know, or not
    within some seconds. ``writable`` says whether this user may replace ``/etc/hosts``.
    """
    writable = os.access(os.path.dirname(HOSTS), os.W_OK)
    return {"addresses": _lookup(request["names"]), "writable": writable}


def _lookup(wanted: list[str]) -> dict[str, list[str]]:
    """The addresses that each name has here; an address has itself."""
    import socket
    import threading
    import time

    found: dict[str, list[str]] = {name: [] for name in wanted}

    def look(name: str) -> None:
        try:
            seen = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found[name] = sorted({str(entry[4][0]) for entry in seen})

    # Side by side, and not waited for: a lookup cannot be interrupted.
    threads = [threading.Thread(target=look, args=(name,), daemon=True) for name in found]
    for thread in threads:
        thread.start()
    end = time.monotonic() + _NAME_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return dict(found)


def address(request: dict[str, Any]) -> dict[str, Any]:
    """Where the request's ``address`` leads on this host, and what of that is its own.

    ``resolved``: what it means here; ``own``: those of it that can be listened on; ``outgoing``:
    the addresses from which this host reaches its ``peers``, as far as these are no names;
    ``default``: the one from which it reaches the internet by IPv4, empty where it does not.
    """
    resolved = _lookup([request["address"]])[request["address"]]
    outgoing = {_source(peer) for peer in request["peers"]}
    return {
        "address": request["address"],
        "resolved": resolved,
        "own": [place for place in resolved if _is_own(place)],
        "outgoing": sorted(outgoing - {""}),
        "default": _source(_ELSEWHERE),
    }


def _source(peer: str) -> str:
    """The address from which this host would reach ``peer``; ``""`` of a name, or without a way."""
    import socket

    try:
        place = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(place[0], socket.SOCK_DGRAM) as trial:
            trial.connect(place[4])  # nothing is sent
            return str(trial.getsockname()[0])
    except OSError:
        return ""


def _is_own(address: str) -> bool:
    """Whether an address is one of this host's: only such can be listened on."""
    import socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind((address, 0))
    except OSError:
        return False
    return True


def in_tailnet(address: str) -> bool:
    """Whether an address is one that Tailscale gives (100.64.0.0/10, fd7a:115c:a1e0::/48)."""
    import ipaddress

    try:
        place = ipaddress.ip_address(address)
    except ValueError:
        return False
    networks = ("100.64.0.0/10", "fd7a:115c:a1e0::/48")
    return any(place in ipaddress.ip_network(network) for network in networks)


def tailnet(request: dict[str, Any]) -> dict[str, Any]:
    """What Tailscale says of itself, asked only where the request's ``address`` is a tailnet's.

    ``member``: whether it is; ``command``: Tailscale's, ``""`` without one; ``error``: why it does
    not answer; else what :func:`tailnet_status` gives.
    """
    import time

    if not any(map(in_tailnet, _lookup([request["address"]])[request["address"]])):
        return {"member": False, "command": "", "error": ""}
    command = next((path for path in _TAILSCALE if os.access(path, os.X_OK)), "")
    found = {"member": True, "command": command, "error": ""}
    if not command:
        return found
    try:
        # Without the variable, the application's program would open its window.
        code, out, err = _asked([command, "status", "--json"], 5.0, TAILSCALE_BE_CLI="1")
        return {**found, **tailnet_status(json.loads(out), request["peers"], time.time())}
    except ValueError:
        said = (err or out).strip().splitlines()
        return {**found, "error": said[-1] if said else f"it ends with {code}"}
    except Exception as error:  # of whatever kind: it is no more than not known
        return {**found, "error": f"{type(error).__name__}: {error}"}


def tailnet_status(status: dict[str, Any], peers: list[str], now: float) -> dict[str, Any]:
    """What counts of ``tailscale status --json`` (ipnstate.Status of its source).

    Args:
        status: what it printed.
        peers: addresses of other hosts.
        now: seconds since 1970.

    Returns:
        ``state`` (``Running`` when it is up); ``expires``: seconds until the key of this host does,
        None for never; ``peers``: of each known one ``address``, ``online``, ``expired``, and
        ``relay``: what traffic with it goes through, empty when it is direct or there is none.
    """
    import calendar
    import time

    expiry, expires = str((status.get("Self") or {}).get("KeyExpiry") or ""), None
    if expiry:
        expires = calendar.timegm(time.strptime(expiry[:19], "%Y-%m-%dT%H:%M:%S")) - now
    found = []
    for peer in (status.get("Peer") or {}).values():
        direct = peer.get("CurAddr") or not peer.get("Active")
        relay = "" if direct else peer.get("PeerRelay") or peer.get("Relay") or ""
        state = {"online": bool(peer.get("Online")), "expired": bool(peer.get("Expired"))}
        own = [place for place in peer.get("TailscaleIPs") or () if place in peers]
        found += [{"address": place, "relay": relay, **state} for place in own]
    return {"state": str(status.get("BackendState")), "expires": expires, "peers": found}


# Macs


def power(_request: dict[str, Any]) -> dict[str, Any]:
    """Of a Mac, when it sleeps; nothing of another host.

    ``sleep``: minutes until it does when it is idle on mains power, 0 for never, None if it is
    not told; ``kept_by``: names of programs that keep it awake now.
    """
    if sys.platform != "darwin":
        return {}
    custom = _output(["/usr/bin/pmset", "-g", "custom"])
    return {
        "sleep": mains_sleep(custom),
        "kept_by": kept_awake_by(_output(["/usr/bin/pmset", "-g", "assertions"])),
    }


def mains_sleep(text: str) -> int | None:
    """Minutes until a Mac on mains power sleeps, from the output of ``pmset -g custom``."""
    source = ""
    for line in text.splitlines():
        words = line.split()
        if line.rstrip().endswith(":"):
            source = line.strip()
        elif source == "AC Power:" and len(words) > 1 and words[0] == "sleep":
            return int(words[1])
    return None


def kept_awake_by(text: str) -> list[str]:
    """Programs that keep a Mac from sleeping, from the output of ``pmset -g assertions``."""
    import re

    kinds = "PreventUserIdleSystemSleep|PreventSystemSleep"
    return sorted(set(re.findall(rf"^\s*pid \d+\((.+?)\): .*\b(?:{kinds}) named", text, re.M)))


def firewall(_request: dict[str, Any]) -> dict[str, Any]:
    """Of a Mac, whether its firewall is on (``on``); nothing of another host.

    ``block_all``: whether it lets nobody in, None where it does not say so plainly; ``stealth``:
    whether it answers no ping; ``programs``: those of a node that others connect to, each with
    whether they may.
    """
    if sys.platform != "darwin":
        return {}
    state = _output([_FIREWALL, "--getglobalstate"])
    # Where it does not say that it is off, it may be on.
    if says_on(state) is False:
        return {"on": False, "block_all": False, "stealth": False, "programs": []}
    every = _output([_FIREWALL, "--getblockall"])
    return {
        "on": True,
        "block_all": "State = 2" in state or says_on(every),
        "stealth": says_on(_output([_FIREWALL, "--getstealthmode"])) is True,
        "programs": [[path, _let_in(path)] for path in _listening_programs()],
    }


def says_on(text: str) -> bool | None:
    """Whether what ``socketfilterfw --get…`` printed means yes; None of any other text.

    Its words differ by version of macOS.
    """
    import re

    if re.search(r"\b(disabled|off)\b", text, re.I):
        return False
    return True if re.search(r"\b(enabled|is on)\b", text, re.I) else None


def _let_in(path: str) -> bool:
    """Whether the firewall knows a program, and lets others connect to it."""
    code, out, _ = _asked([_FIREWALL, "--getappblocked", path], 20.0)
    return code == 0 and "permitted" in out


def _listening_programs() -> list[str]:
    """Those of the environment that listen for other nodes; none where there is no environment."""
    try:
        ray = os.path.join(_site_packages(), "ray", "core", "src", "ray")
    except ValueError:
        return []
    own = [os.path.join(ray, *names) for names in (("gcs", "gcs_server"), ("raylet", "raylet"))]
    return [base_interpreter(), *(os.path.realpath(path) for path in own if os.path.exists(path))]


def metal(_request: dict[str, Any]) -> dict[str, Any]:
    """Of a Mac, its GPU; nothing of another host.

    ``device``: its name, empty without one; ``limit``: bytes of memory that it may use, None while
    macOS decides.
    """
    if sys.platform != "darwin":
        return {}
    registry = ["/usr/sbin/ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator"]
    # A macOS that does not know the setting decides itself.
    _, out, _ = _asked([_SYSCTL, "-n", "iogpu.wired_limit_mb"], 20.0)
    limit = int(out) if out.strip().isdigit() else 0
    return {"device": gpu_name(_output(registry)), "limit": limit * 2**20 or None}


def gpu_name(text: str) -> str:
    """The model of the first GPU in the output of ``ioreg -c IOAccelerator``; ``""`` of none."""
    import re

    found = re.search(r'"model" = <?"([^"]+)"', text)
    return found[1] if found else ""


def filevault(_request: dict[str, Any]) -> dict[str, Any]:
    """Of a Mac, whether its disk is encrypted (``on``); nothing of another host."""
    if sys.platform != "darwin":
        return {}
    return {"on": filevault_on(_output(["/usr/bin/fdesetup", "status"]))}


def filevault_on(text: str) -> bool:
    """The same, from the output of ``fdesetup status``.

    Raises:
        ValueError: it says neither.
    """
    import re

    found = re.search(r"FileVault is (On|Off)", text)
    if found is None:
        raise ValueError(f"fdesetup says {text.strip()[:200]!r}")
    return found[1] == "On"


FACTS = {
    "interpreter": interpreter,
    "environment": environment,
    "packages": packages,
    "ray_build": ray_build,
    "isolation": isolation,
    "files": files,
    "python_files": python_files,
    "platform": platform,
    "memory": memory,
    "swap": swap,
    "disk": disk,
    "shm": shm,
    "nofile": nofile,
    "temp_dir": temp_dir,
    "uv": uv,
    "token": token,
    "ports": ports,
    "ray": ray_processes,
    "names": names,
    "address": address,
    "environments": environments,
    "tailnet": tailnet,
    "power": power,
    "firewall": firewall,
    "metal": metal,
    "filevault": filevault,
}

OF_NODE = ("disk", "ports", "ray")
"""Facts that differ between native nodes of one cluster with one environment on one host."""


def gather(request: dict[str, Any]) -> dict[str, Any]:
    """All facts, or those named in ``request["only"]``.

    The request's keys, each needed only by the facts that use it: ``deep`` (hash every file),
    ``folders`` (purpose to folder), ``temp_dir``, ``address``, ``ports`` (name, number and, where
    it is another, address), ``cluster_id``, ``node``, ``names``, ``peers`` (addresses of the other
    hosts), ``envs`` (folder of environments), ``token`` (path), ``uv`` (path). ``beside``: by name,
    what of the request is another for nodes like this one; of each, ``beside`` in the answer has
    the facts of :data:`OF_NODE`.
    """
    import threading

    found, unknown = {}, {}

    def look(names: list[str]) -> None:
        for name in names:
            try:
                found[name] = FACTS[name](request)
            except KeyError as error:
                unknown[name] = f"the request does not say {error}"
            except Exception as error:  # one fact's fault must not lose the others
                unknown[name] = f"{type(error).__name__}: {error}"

    names = [name for name in FACTS if name in request.get("only", FACTS)]
    # For a disk, for a process.
    slow = ("interpreter", "uv", "tailnet", "power", "firewall", "metal", "filevault")
    waiting = [name for name in names if name in slow]
    helper = threading.Thread(target=look, args=(waiting,))
    helper.start()
    look([name for name in names if name not in waiting])
    helper.join()
    answer = {"schema": SCHEMA, "facts": found, "unknown": unknown}
    if others := request.get("beside"):
        shared = {**request, "beside": {}, "only": [n for n in names if n in OF_NODE]}
        answer["beside"] = {name: gather({**shared, **own}) for name, own in others.items()}
    return answer


def main(argv: list[str]) -> int:
    """Print facts as JSON: the interpreter's with ``--interpreter``, else what stdin asks for."""
    if argv == ["--interpreter"]:
        print(json.dumps(interpreter()))
    else:
        print(json.dumps(gather(json.loads(sys.stdin.read()))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
