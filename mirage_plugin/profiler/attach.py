"""Watching a sidecar that runs: its frames, page by page, over the bridge."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import mirage_bridge
from mirage_bridge import RequestError, RequestTimeoutError
from mirage_plugin.errors import DataError, NoSidecarError
from mirage_plugin.profiler.recording import Pages

__all__ = ["ask", "collect", "drain"]

# A page has some eighty frames; asking twice a second keeps up with one game at 160 fps in one request.
_PERIOD_S: Final = 0.25
# More pages than this at once would keep the sidecar from its games.
_BURST: Final = 12


def ask(endpoint: str | None, fields: Mapping[str, Any] | None = None, timeout_s: float = 5.0) -> dict[str, Any]:
    """One page. Raises `NoSidecarError` where nobody answers, `DataError` where it has no profiler."""
    where = endpoint if endpoint is not None else mirage_bridge.default_endpoint()
    try:
        return mirage_bridge.request(where, "profile", fields, timeout_s)
    except RequestTimeoutError as error:
        raise NoSidecarError(where) from error
    except RequestError as error:
        raise DataError(f"the sidecar at {where} cannot be profiled ({error}): update the older of the two") from error


def drain(endpoint: str | None, pages: Pages) -> int:
    """Fetch what is new, at most a dozen pages; returns how many frames came."""
    came = 0
    for _ in range(_BURST):
        page = ask(endpoint, {} if pages.since is None else {"since": pages.since})
        came += pages.add(page)
        if page["next"] >= page["end"]:
            break
    return came


def collect(
    endpoint: str | None,
    seconds: float,
    watch: Callable[[Pages], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Pages:
    """Gather frames for ``seconds``, or until ``stop`` says so or Ctrl-C; ``watch`` sees them as they come.

    A sidecar that ends meanwhile ends it too: what came before is kept. Raises what `ask` raises where
    nothing came at all.
    """
    pages = Pages()
    end_s = time.monotonic() + seconds
    try:
        while True:
            try:
                drain(endpoint, pages)
            except NoSidecarError:
                if not pages.frames:
                    raise
                break
            if watch is not None:
                watch(pages)
            left_s = end_s - time.monotonic()
            if left_s <= 0 or (stop is not None and stop()):
                break
            time.sleep(min(_PERIOD_S, left_s))
    except KeyboardInterrupt:
        pass
    return pages
