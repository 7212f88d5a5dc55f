"""Archives of interpreters that hosts cannot fetch themselves, fetched here for them."""

from __future__ import annotations

from pathlib import Path

from saf_env.lock.model import Interpreter
from saf_env.provision.failures import failed
from saf_env.provision.folders import Notify, fresh, guard, publish, write_json
from saf_env.provision.interpreters import row
from saf_env.provision.pack import sha256
from saf_env.uv import Uv


def fetch_archive(interpreter: Interpreter, uv: Uv, notify: Notify) -> Path:
    """The archive of an interpreter of any platform that has an address: fetched once, verified.

    Args:
        interpreter: which build, of whichever platform.
        uv: the pinned uv; its mirrors, proxies and certificates are used.
        notify: gets a line when it has to be fetched.

    Raises:
        ToolchainError: it cannot be had, or is another file than was locked.
    """
    place = uv.home / ".saf" / "python" / f"fetched-{interpreter.sha256[:16]}.tar.gz"
    with guard(place, notify):
        if place.is_file() and sha256(place) == interpreter.sha256:
            return place
        notify(f"getting CPython {interpreter.version} for {interpreter.platform}")
        with fresh(place) as folder:
            key, value = row(interpreter, uv.home)
            write_json(folder / "downloads.json", {key: value})
            result = uv.run(
                ["python", "install", "--no-bin", key],
                cwd=folder,
                extra={
                    "UV_PYTHON_CACHE_DIR": str(folder / "cache"),
                    "UV_PYTHON_DOWNLOADS": "manual",
                    "UV_PYTHON_DOWNLOADS_JSON_URL": str(folder / "downloads.json"),
                    "UV_PYTHON_INSTALL_DIR": str(folder / "python"),
                },
            )
            # Whether it can be installed here is not asked: it may be for another platform.
            fetched = [f for f in (folder / "cache").glob("*") if f.is_file()]
            found = [f for f in fetched if sha256(f) == interpreter.sha256]
            if not found:
                raise failed(f"get CPython {interpreter.version} from {interpreter.url}", result)
            publish(found[0], place)
    return place
