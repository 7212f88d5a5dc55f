"""What is sent to a host over SSH, and what comes back: the one place that quotes.

sshd hands a command to the user's login shell, which may be any, and may print a banner. So the
command is always :data:`COMMAND`, which every shell takes the same way. It starts ``sh`` with an
empty environment, which reads one line from stdin and runs it: a :class:`Script`. The rest of stdin
is the command's. Neither words nor variables stand in a list of arguments but the command's own.

The script marks on both streams where the command's output begins, after whatever the login shell
printed, with the process group; and at the end of stderr how it ended. A :class:`Frame` takes that
out again. Without the mark of the end, the connection was lost.
"""

from __future__ import annotations

import posixpath
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from saf_env.transports.process import Sink

# ASCII, no backslash, no single quote inside the quotes, no exclamation mark: fish and the C shells
# take each of these differently. `read` takes byte by byte, so that it leaves the rest of stdin.
COMMAND = "exec env -i PATH=/usr/bin:/bin sh -c 'IFS= read -r p && eval \"$p\"'"

DEFAULT_PATH = "/bin:/usr/bin"
"""Where a program is looked for without a PATH, as :data:`os.defpath` has it."""

SHELLS_OWN = frozenset({"PWD", "OLDPWD", "SHLVL", "_"})
"""Variables that shells set for what they start; what is given for them is not handed on."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NEWLINE = "saf_env_newline"
# Shells refuse to set these (bash and zsh of /bin/sh), or make something else of the value.
# fmt: off
_UNSETTABLE = frozenset({
    "BASHOPTS", "BASHPID", "BASH_VERSINFO", "DIRSTACK", "EGID", "EUID", "FUNCNAME", "GID", "GROUPS",
    "HISTCMD", "LINENO", "OPTIND", "PPID", "RANDOM", "SECONDS", "SHELLOPTS", "SRANDOM", "UID",
    "USERNAME", _NEWLINE,
})
# fmt: on


def quote(word: str) -> str:
    """A word as every POSIX shell reads it back, in one line.

    Raises:
        ValueError: there is a zero byte in it, which no command line can hold.
    """
    if "\0" in word:
        raise ValueError("a word of a command holds a zero byte")
    quoted = word.replace("'", "'\"'\"'").replace("\n", f"'\"${_NEWLINE}\"'")
    return f"'{quoted}'"


@dataclass(frozen=True)
class Script:
    """One line for the shell of a host.

    Attributes:
        nonce: what its marks are known by; nobody else can print it.
        line: the line with its newline, as it is sent.
    """

    nonce: str
    line: bytes


def run_script(argv: Sequence[str], env: Mapping[str, str], cwd: str | None) -> Script:
    """Run ``argv`` with the variables ``env`` and no others but :data:`SHELLS_OWN`.

    It ends with the command's code, or with ``folder`` or ``program``: whichever does not exist.

    Raises:
        ValueError: a word or a variable that cannot be handed on.
    """
    if not argv or not argv[0] or argv[0].startswith("-"):
        raise ValueError(f"not a command: {argv!r}")
    steps = [f"set -- {_words(argv)}"]
    if cwd is not None:
        steps.append(f"cd -- {quote(_path(cwd))} || {_leave('folder')}")
    # A program's own 127 must stay its own. `command -v` would also find what is built in.
    steps.append(
        f"for p in {_words(_candidates(argv[0], env.get('PATH', DEFAULT_PATH)))}; do "
        'if [ -f "$p" ] && [ -x "$p" ]; then break; fi; p=; done; '
        f'[ -n "$p" ] || {_leave("program")}'
    )
    if "PATH" not in env:
        steps.append('shift; set -- "$p" "$@"; unset PATH')
    steps.append("unset LOGNAME")  # zsh sets it
    steps.extend(_exports(env))
    # exec runs programs only: a word is never taken for a function or a command of the shell.
    return _script([*steps, '(exec "$@") 2>&3 3>&-'])


def body_script(body: str, words: Sequence[str]) -> Script:
    """Run ``body``, a text of ours for ``sh``, in which ``$1``, ``$2``, … are ``words``."""
    return _script([f"set -- {_words(words)}", f"({body}) 2>&3 3>&-"])


_PUT = (
    'umask 077; if [ -d "$1" ]; then echo "it is a folder" >&2; exit 1; fi; '
    'mkdir -p -- "$2" && rm -f -- "$3" && '
    # Made anew or not at all: in a folder of many users, the name may be somebody's link.
    '(set -C; cat >"$3") && n=$(wc -c <"$3") && '
    'if [ "$n" -ne "$4" ]; then echo "$n of $4 bytes have arrived" >&2; false; fi && '
    'chmod "$5" "$3" && mv -f -- "$3" "$1" || { rm -f -- "$3"; exit 1; }'
)


def put_script(target: str, size: int, mode: int) -> Script:
    """Write stdin, ``size`` bytes, to the file ``target`` with the permissions ``mode``.

    It is written under another name beside it, which is always the same one: what an interruption
    leaves is gone with the next try.
    """
    path = _path(target)
    folder, name = posixpath.split(path)
    if not name:
        raise ValueError(f"not a file: {target!r}")
    new = posixpath.join(folder, f".{name}.saf-env-new")
    return body_script(_PUT, [path, folder, new, str(size), f"{mode:o}"])


def kill_script(group: int, *, ask: bool) -> Script:
    """Kill a process group; ``ask`` gives it two seconds to end by itself after an interrupt."""
    wait = (
        'kill -s INT -- "-$1"; i=0; while [ $i -lt 20 ] && kill -s 0 -- "-$1"; '
        "do sleep 0.1 || sleep 1; i=$((i + 1)); done; "
    )
    return body_script(f'{wait if ask else ""}kill -s KILL -- "-$1"', [str(group)])


def _script(steps: Iterable[str]) -> Script:
    nonce = secrets.token_hex(16)
    begin = f'echo "saf-env:{nonce}:begin:$$"'
    lines = [
        # What shells say themselves (of a locale, of a child that was killed) is not the command's.
        "exec 3>&2 2>/dev/null",
        # An interrupt for the group is the command's; the shell goes on to tell how that ended.
        "trap : INT",
        f'm="saf-env:{nonce}:end:"',
        f"{begin}; {begin} >&3",
        f'{_NEWLINE}="$(echo; echo .)"; {_NEWLINE}="${{{_NEWLINE}%.}}"',
        *steps,
        f'echo "saf-env:{nonce}:end:$?" >&3; exit 0',
    ]
    line = "; ".join(lines) + "\n"
    return Script(nonce, line.encode("utf-8", "surrogateescape"))


def _leave(why: str) -> str:
    return f'{{ echo "${{m}}{why}" >&3; exit 0; }}'


def _words(words: Iterable[str]) -> str:
    return " ".join(quote(word) for word in words)


def _path(path: str) -> str:
    """A path that no tool takes for an option, or for a folder of the shell's."""
    return path if path.startswith("/") else f"./{path}"


def _candidates(name: str, path: str) -> list[str]:
    if "/" in name:
        return [name]
    return [posixpath.join(folder or ".", name) for folder in path.split(":")]


def _exports(env: Mapping[str, str]) -> Iterable[str]:
    for name, value in sorted(env.items()):
        if not _NAME.fullmatch(name) or name in _UNSETTABLE:
            raise ValueError(f"a shell cannot hand on the variable {name!r}")
        if name not in SHELLS_OWN:
            yield f"export {name}={quote(value)}"


class Frame:
    """Takes one stream of a :class:`Script` and hands on what the command printed.

    Attributes:
        before: what came before the command, its end; all when the command was never begun.
        tail: the end of what the command printed, and of what the client said meanwhile.
        group: the process group there; None until the command begins.
        end: how it ended, see :func:`run_script`; None until then.
    """

    KEPT = 4096
    """Bytes of ``before`` and ``tail``: enough for any message."""

    def __init__(self, nonce: str, sink: Sink) -> None:
        self.before = b""
        self.tail = b""
        self.group: int | None = None
        self.end: str | None = None
        self._sink = sink
        self._begin = f"saf-env:{nonce}:begin:".encode()
        self._finish = f"saf-env:{nonce}:end:".encode()
        self._held = b""

    def take(self, data: bytes) -> None:
        """The next part of the stream."""
        data = self._held + data
        self._held = b""
        if self.group is None:
            data = self._start(data)
        if self.group is not None and self.end is None and data:
            self._pass(data)

    def close(self) -> None:
        """The stream is at its end: hand on what looked like the beginning of a mark."""
        if self.group is not None and self.end is None:
            self._emit(self._held)
            self._held = b""

    def _start(self, data: bytes) -> bytes:
        found = data.find(self._begin)
        line = data.find(b"\n", found) if found >= 0 else -1
        if line < 0:
            keep = data if found < 0 else data[:found]
            self.before = keep[-self.KEPT :]
            self._held = data[max(0, (len(data) if found < 0 else found) - self.KEPT) :]
            return b""
        self.before = data[:found][-self.KEPT :]
        self.group = int(data[found + len(self._begin) : line])
        return data[line + 1 :]

    def _pass(self, data: bytes) -> None:
        found = data.find(self._finish)
        if found < 0:
            hold = _overlap(data, self._finish)
            self._emit(data[: len(data) - hold])
            self._held = data[len(data) - hold :]
            return
        self._emit(data[:found])
        line = data.find(b"\n", found)
        if line < 0:
            self._held = data[found:]
        else:
            self.end = data[found + len(self._finish) : line].decode("ascii", "replace")

    def _emit(self, data: bytes) -> None:
        if data:
            self.tail = (self.tail[-self.KEPT :] + data[-self.KEPT :])[-self.KEPT :]
            self._sink(data)


def _overlap(data: bytes, mark: bytes) -> int:
    """How many bytes at the end of ``data`` may be the beginning of ``mark``."""
    longest = min(len(data), len(mark) - 1)
    return next((n for n in range(longest, 0, -1) if mark.startswith(data[-n:])), 0)


def exit_code(end: str) -> int:
    """A code as transports give it, out of a shell's: minus the signal that ended the command.

    A shell gives 128 and the signal's number. It does not tell this from a command that exits with
    such a code by itself; shells themselves do so to hand a signal on.
    """
    code = int(end)
    return 128 - code if 128 < code < 160 else code
