"""Arrays over shared memory with a lifetime: after the lease ends, using one raises.

numpy alone would go on reading whatever frame stands in the slot by then.  What cannot be
guarded is a raw buffer somebody took out of the view (``np.asarray(view)``, a pygame
Surface, a torch tensor): the memory stays mapped, so that it never crashes, but it is the
holder's duty not to look at it after the lease.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import LeaseError

__all__ = ["Lease", "View", "guarded"]


class Lease:
    """Permission to look at a piece of shared memory; ``end`` takes it back for good."""

    __slots__ = ("alive", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.alive = True

    def end(self) -> None:
        self.alive = False

    def check(self) -> None:
        """Raise `LeaseError` if the lease has ended."""
        if not self.alive:
            raise LeaseError(
                f"this view belongs to {self.what}, which was given back: its memory may hold another "
                f"frame by now; copy what you need (view.copy()) before giving it back"
            )


# What an ended view still tells: nothing of it reads pixels.
_HARMLESS = frozenset(
    {"_lease", "__class__", "__dict__", "shape", "dtype", "ndim", "size", "strides", "nbytes"}
)


class View(np.ndarray[Any, np.dtype[Any]]):
    """An ndarray whose every use checks its lease; copies and results are plain arrays."""

    _lease: Lease | None

    def __array_finalize__(self, obj: Any) -> None:
        # A copy owns its data and outlives the lease; a slice or reshape shares both.
        owns = np.ndarray.__getattribute__(self, "flags").owndata
        self._lease = None if owns or not isinstance(obj, View) else obj._lease

    def __getattribute__(self, name: str) -> Any:
        if name not in _HARMLESS:
            _check(self)
        return super().__getattribute__(name)

    def __getitem__(self, key: Any) -> Any:
        _check(self)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _check(self)
        super().__setitem__(key, value)

    def __array_ufunc__(self, ufunc: np.ufunc, method: Any, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.get("out")
        if out is not None:
            kwargs["out"] = tuple(_plain(each) for each in out)
        result = getattr(ufunc, method)(*(_plain(each) for each in inputs), **kwargs)
        return out[0] if out is not None and len(out) == 1 else result

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return func(*_plain_tree(args), **{key: _plain_tree(value) for key, value in kwargs.items()})

    def __iter__(self) -> Any:
        _check(self)
        return super().__iter__()

    def __contains__(self, key: object) -> bool:
        _check(self)
        return bool(super().__contains__(key))

    def __repr__(self) -> str:
        return repr(_plain(self))

    def __str__(self) -> str:
        return str(_plain(self))

    def __bool__(self) -> bool:
        return bool(_plain(self))

    def __int__(self) -> int:
        return int(_plain(self))

    def __float__(self) -> float:
        return float(_plain(self))

    def __copy__(self) -> Any:
        return _plain(self).copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return _plain(self).copy()

    def __reduce__(self) -> Any:
        return _plain(self).copy().__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _plain(self).copy().__reduce_ex__(protocol)

    def __buffer__(self, flags: int, /) -> memoryview:  # asked for by Python 3.12 and later alone
        return _plain(self).__buffer__(flags)  # type: ignore[no-any-return]


def _check(view: View) -> None:
    lease = np.ndarray.__getattribute__(view, "_lease")
    if lease is not None:
        lease.check()


def _plain(value: Any) -> Any:
    if isinstance(value, View):
        _check(value)
        return np.ndarray.view(value, np.ndarray)
    return value


def _plain_tree(value: Any) -> Any:
    if type(value) in (tuple, list):
        return type(value)(_plain_tree(each) for each in value)
    return _plain(value)


def guarded(array: np.ndarray[Any, np.dtype[Any]], lease: Lease, *, writable: bool) -> View:
    """The same memory as ``array``, of the same shape and dtype, for as long as ``lease`` lives."""
    view = array.view(View)
    view._lease = lease
    if not writable:
        view.flags.writeable = False
    return view
