"""A view into shared memory has a lifetime."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mirage_bridge import LeaseError
from mirage_bridge.views import Lease, View, guarded


def lent(writable: bool = True) -> tuple[View, Lease]:
    lease = Lease("a frame")
    return guarded(np.arange(24, dtype=np.uint8).reshape(2, 3, 4), lease, writable=writable), lease


USES: dict[str, Callable[[View], Any]] = {
    "index": lambda view: view[0],
    "assign": lambda view: view.__setitem__(0, 1),
    "iterate": lambda view: list(view),
    "add": lambda view: view + 1,
    "add in place": lambda view: view.__iadd__(1),
    "compare": lambda view: view == 3,
    "invert into": lambda view: np.invert(view, out=view),
    "function": lambda view: np.concatenate([view, view]),
    "method": lambda view: view.sum(),
    "copy": lambda view: view.copy(),
    "deepcopy": lambda view: copy.deepcopy(view),
    "pickle": lambda view: pickle.dumps(view),
    "bytes": lambda view: view.tobytes(),
    "text": str,
    "address": lambda view: view.ctypes,
    "interface": lambda view: view.__array_interface__,
    "contains": lambda view: 3 in view,
}


@pytest.mark.parametrize("use", USES)
def test_every_use_raises_after_the_lease(use: str) -> None:
    view, lease = lent()
    USES[use](view)
    lease.end()
    with pytest.raises(LeaseError, match="given back"):
        USES[use](view)


def test_slices_share_the_lease_and_copies_do_not() -> None:
    view, lease = lent()
    part, reshaped, taken, result = view[:, 1:], view.reshape(-1), view.copy(), view + 1
    lease.end()
    for derived in (part, reshaped):
        with pytest.raises(LeaseError):
            derived.sum()
    assert taken.sum() == 276
    assert result.sum() == 300


def test_read_only_views_cannot_be_written() -> None:
    view, _ = lent(writable=False)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_arithmetic_gives_what_plain_arrays_give() -> None:
    view, _ = lent()
    plain = np.asarray(view)
    assert type(view + view) is np.ndarray
    np.testing.assert_array_equal(view * 3 + view[:1], plain * 3 + plain[:1])
    np.testing.assert_array_equal(np.where(view > 5, view, 0), np.where(plain > 5, plain, 0))
    view += 1
    assert isinstance(view, View)
    assert plain[0, 0, 0] == 1
