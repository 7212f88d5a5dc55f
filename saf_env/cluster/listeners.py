"""Listens on ports, and calls those of others. One file, standard library only.

It runs on hosts before Ray does, by :mod:`saf_env.transports.script`, to see whether they reach
each other on the ports that Ray will have: a JSON request in, one line of JSON out. Who listens
answers only to callers that know the question of this trial, and callers know the answer to expect:
another service on a port is told apart.

Who listens ends when nobody reads what it prints any more, as when its connection to the caller of
all this is lost, or whoever started it is gone; and after a limit of seconds whatever happens.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

REFUSED, SILENT, OTHER = "refused", "silent", "other"
"""Why a call was in vain: sent away at once; no sound; somebody else, or nobody of us, answered."""

MOST_BYTES = 8_000_000
"""Of a burst, by which bandwidth is measured: 60 ms of a gigabit a second."""

MOST_SECONDS = 0.2
"""Of a burst, from its first byte to the last one that counts."""

_LOOK = 1.0  # seconds between two looks whether whoever started us is still there
_AT_ONCE = 64
_PART = 1 << 16
_BURST = b"burst"
_CALL = b"hello"
_SENT_AWAY = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE)


def listen(request: Mapping[str, Any]) -> None:
    """Listen on ``ports`` for ``seconds``; say at once which of them cannot be had.

    Args:
        request: ``ports``: pairs of address and number; ``question``, ``answer``: words of this
            trial; ``patience``: seconds that a caller has to ask; ``seconds``.

    Printed: ``taken``, lists of address, number and why: :data:`OTHER`, or the system's words. What
    listens then answers each caller in a thread.
    """
    opened, taken = _open(request["ports"])
    sys.stdout.write(json.dumps({"taken": taken}) + "\n")
    sys.stdout.flush()
    by_number = {one.fileno(): one for one in opened}
    watched = select.poll()
    # Linux tells hang-ups unasked, macOS only to who asks for something (rdar://37537852); whether
    # our parent is still there is looked at as well.
    watched.register(sys.stdout.fileno(), select.POLLHUP)
    for number in by_number:
        watched.register(number, select.POLLIN)
    parent, end = os.getppid(), time.monotonic() + request["seconds"]
    while (left := end - time.monotonic()) > 0 and os.getppid() == parent:
        for number, _ in watched.poll(min(left, _LOOK) * 1000):
            if number not in by_number:
                return  # nobody reads us
            with contextlib.suppress(OSError):  # a caller that is gone already
                caller = by_number[number].accept()[0]
                threading.Thread(target=_serve, args=(caller, request), daemon=True).start()


def _open(ports: list[Any]) -> tuple[list[socket.socket], list[Any]]:
    """Sockets that listen, and the ports that cannot be had, with the reason."""
    opened, taken = [], []
    for address, number in ports:
        one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        # As Ray does: a connection in TIME_WAIT does not hold its port.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((address, number))
            one.listen(128)
            one.setblocking(False)
        except OSError as error:
            one.close()
            taken.append([address, number, _why_not(error)])
        else:
            opened.append(one)
    return opened, taken


def _why_not(error: OSError) -> str:
    """Why nobody can listen: somebody else does, or something is wrong with the address."""
    in_use = error.errno == errno.EADDRINUSE
    return OTHER if in_use else f"cannot be listened on: {error.strerror or error}"


def _serve(caller: socket.socket, request: Mapping[str, Any]) -> None:
    """Answer a caller that asks as ours do; of any other, hang up."""
    with contextlib.suppress(OSError), caller:
        caller.settimeout(request["patience"])
        question = request["question"].encode()
        said = _received(caller, len(question) + len(_CALL))
        if said[: len(question)] != question:
            return
        caller.sendall(request["answer"].encode())
        if said[len(question) :] == _BURST:
            _take_burst(caller)
        else:
            # Who hangs up first keeps the connection in TIME_WAIT: not the port that Ray will have.
            caller.recv(1)


def _received(one: socket.socket, size: int) -> bytes:
    """The next ``size`` bytes, fewer when the other hangs up."""
    data = b""
    while len(data) < size and (part := one.recv(size - len(data))):
        data += part
    return data


def _take_burst(caller: socket.socket) -> None:
    """Read a burst and say what it was, in bytes and seconds; then until the caller hangs up."""
    count, began, now = 0, 0.0, 0.0
    while count < MOST_BYTES and now - began < MOST_SECONDS:
        part = caller.recv(_PART)
        if not part:
            break
        now = time.monotonic()
        began = began or now
        count += len(part)
    caller.sendall(json.dumps([count, now - began]).encode() + b"\n")
    # Who hangs up on what is unread resets the connection, and the answer may be lost.
    end = time.monotonic() + 1.0
    while time.monotonic() < end and caller.recv(_PART):
        pass


def call(request: Mapping[str, Any]) -> dict[str, Any]:
    """Call ``targets`` side by side, then send bursts to some of them, one after the other.

    Args:
        request: ``targets``: lists of address, number and whether one of us listens there, and not
            a node, which is not asked anything; ``bursts``: pairs of address and number;
            ``question``, ``answer``, ``patience``: see :func:`listen`.

    Returns:
        ``calls``: for each target a pair: why it was in vain, or empty; milliseconds until it was
        connected, a round trip, or None. ``rates``: for each burst bytes a second, or None.
    """
    targets = request["targets"]
    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(targets) or 1)) as pool:
        calls = list(pool.map(lambda target: _dial(request, *target), targets))
    return {"calls": calls, "rates": [_burst(request, *place) for place in request["bursts"]]}


def _dial(request: Mapping[str, Any], address: str, number: int, ours: bool) -> list[Any]:
    began = time.perf_counter()
    try:
        with socket.create_connection((address, number), request["patience"]) as way:
            ms = (time.perf_counter() - began) * 1000
            return ["" if not ours or _answers(way, request, _CALL) else OTHER, ms]
    except OSError as error:
        return [_why(error), None]


def _why(error: OSError) -> str:
    if error.errno in (None, errno.ETIMEDOUT):  # our own time-out has no number
        return SILENT
    return REFUSED if error.errno in _SENT_AWAY else error.strerror or str(error)


def _answers(way: socket.socket, request: Mapping[str, Any], what: bytes) -> bool:
    """Whether the other end of a connection is one of us."""
    answer: bytes = request["answer"].encode()
    try:
        way.sendall(request["question"].encode() + what)
        return _received(way, len(answer)) == answer
    except OSError:  # it is connected: somebody is there, and hangs up or says nothing
        return False


def _burst(request: Mapping[str, Any], address: str, number: int) -> float | None:
    """Bytes a second that arrive there; None where that cannot be seen."""
    try:
        with socket.create_connection((address, number), request["patience"]) as way:
            if not _answers(way, request, _BURST):
                return None
            count, seconds = json.loads(_pour(way, request["patience"]))
    except (OSError, ValueError):
        return None
    return float(count / seconds) if seconds else None


def _pour(way: socket.socket, patience: float) -> bytes:
    """Send until the other end says what it has got; that line, empty if there is none in time."""
    part, said = memoryview(bytes(_PART)), b""
    way.setblocking(False)
    end = time.monotonic() + MOST_SECONDS + patience
    while not said.endswith(b"\n") and (left := end - time.monotonic()) > 0:
        readable, writable, _ = select.select([way], [way], [], left)
        if readable:
            got = way.recv(_PART)
            if not got:
                break
            said += got
        elif writable:
            with contextlib.suppress(BlockingIOError):
                way.send(part)
    return said


def main() -> None:
    """Read a request on standard input, and do what its ``op`` says."""
    request = json.load(sys.stdin)
    if request["op"] == "listen":
        listen(request)
    else:
        json.dump(call(request), sys.stdout)


if __name__ == "__main__":
    main()
