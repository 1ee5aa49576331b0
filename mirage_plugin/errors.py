"""Every error that Mirage raises on purpose, drawn once.

::

    MirageError                      catch this one; str(error) is a sentence a user can act on
    ├── ConfigError                  an option or a setting is out of range or contradicts another
    │   └── UnknownStyleError        no style of that name; names the closest ones
    ├── MissingDependencyError       an optional package is not installed; says which pip line brings it
    ├── WeightsError                 weights are missing, truncated, altered, or of another tier or version
    ├── DeviceError                  the device asked for is not there, or gave up and could not be rebuilt
    ├── NoSidecarError               nothing answers at this endpoint
    ├── DataError                    an input file (frames, pairs, a recording, a preset) cannot be used
    └── OutputError                  a result cannot be written (no permission, no space)

Libraries raise these; only the command line prints them and exits. What goes wrong between the processes, an
endpoint in use among it, has its own tree in `mirage_bridge.errors`: the bridge must not know this package.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "ConfigError",
    "DataError",
    "DeviceError",
    "MirageError",
    "MissingDependencyError",
    "NoSidecarError",
    "OutputError",
    "UnknownStyleError",
    "WeightsError",
    "closest",
]


def closest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of the `known` names that look most like `name`, best first, ignoring case."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    return [by_folded[m] for m in difflib.get_close_matches(name.casefold(), by_folded, n=count, cutoff=0.5)]


class MirageError(Exception):
    """Base of every error that Mirage raises on purpose. Its text says what to do next."""


class ConfigError(MirageError, ValueError):
    """An option or a setting is out of range or contradicts another; the text names what would be right."""


class UnknownStyleError(ConfigError):
    """No style of that name is known."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        """Say so, with the closest of the `known` names."""
        self.name = name
        self.known = tuple(sorted(known))
        near = closest(name, self.known)
        hint = f"did you mean {' or '.join(near)}?" if near else "`mirage styles` lists those there are."
        super().__init__(f"there is no style {name!r}; {hint}")


class MissingDependencyError(MirageError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str = "sidecar") -> None:
        """Name the `package` and the `extra` of mirage-plugin that brings it."""
        self.package = package
        self.extra = extra
        super().__init__(f'{package} is needed and not installed: pip install "mirage-plugin[{extra}]"')


class WeightsError(MirageError):
    """A weights file is missing, truncated, altered, or belongs to another tier or version."""

    @classmethod
    def missing(cls, tier: str, path: Path) -> WeightsError:
        """The weights of `tier` should lie at `path` and do not."""
        return cls(
            f"tier {tier!r} has no weights at {path}: train them with `mirage train --tier {tier}`, "
            "or take a tier that has (`mirage doctor` shows which)"
        )

    @classmethod
    def unreadable(cls, path: Path, why: str) -> WeightsError:
        """The file at `path` exists and cannot be used; `why` is a clause without a full stop."""
        return cls(f"the weights at {path} cannot be used ({why}): restore the file or train it again")


class DeviceError(MirageError):
    """The device asked for is not there, or failed and could not be brought back."""

    @classmethod
    def no_cuda(cls) -> DeviceError:
        """CUDA was asked for where torch sees none."""
        return cls("torch sees no CUDA device: use --device cpu, or let `mirage doctor` say what is missing")


class NoSidecarError(MirageError):
    """Nothing answers at the endpoint."""

    def __init__(self, endpoint: str) -> None:
        """Name the silent `endpoint`."""
        self.endpoint = endpoint
        super().__init__(f"no sidecar answers at {endpoint}: start one with `mirage serve`")


class DataError(MirageError):
    """A file given as input cannot be used: unreadable, truncated, the wrong kind, or without its twin."""


class OutputError(MirageError):
    """A result cannot be written."""

    @classmethod
    def at(cls, path: Path, error: OSError) -> OutputError:
        """Writing to `path` ended in `error`."""
        why = error.strerror or str(error)
        return cls(f"{path} cannot be written ({why}): free some space or choose another place")
