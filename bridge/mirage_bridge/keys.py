"""Who may play from another machine: CURVE keys and the allow-list (PROTOCOL §9.1).

A directory (``$MIRAGE_KEYS``, else ``~/.config/mirage/keys``, mode 0700) holds

    NAME.key        one key pair, mode 0600: never leaves the machine
    allowed.json    on the sidecar's machine: the public keys of the games that may connect, by name
    hosts.json      on the game's machine: the public keys of the sidecars it trusts, by endpoint

To let a game in: ``make("host")`` beside the sidecar and ``make("game")`` beside the game; then
``allow("ann", PUBLIC)`` with the game's public key there, and ``trust("tcp://10.0.0.7:47363", PUBLIC)`` with
the sidecar's here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zmq
import zmq.utils.z85

from .errors import EndpointError

__all__ = [
    "Credentials",
    "Key",
    "allow",
    "allowed",
    "credentials",
    "key_directory",
    "list_keys",
    "load",
    "make",
    "revoke",
    "trust",
    "trusted",
]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PUBLIC_CHARS: Final = 40


@dataclass(frozen=True)
class Key:
    """A key pair; ``public`` and ``secret`` are 40 characters of Z85."""

    name: str
    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Credentials:
    """What a game needs to reach a sidecar on another machine: its own key and the sidecar's public key."""

    key: Key
    host_public: str


def key_directory() -> Path:
    """``$MIRAGE_KEYS``, else ``mirage/keys`` under the user's configuration."""
    configured = os.environ.get("MIRAGE_KEYS")
    if configured:
        return Path(configured)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "mirage" / "keys"


def make(name: str, directory: Path | None = None) -> Key:
    """Make the key pair ``name``.  Raises `FileExistsError` rather than replace one, `ValueError` for a bad
    name.
    """
    path = _path(name, _place(directory))
    public = "-"
    while public.startswith("-"):  # one that a command line would take for an option
        public, secret = (half.decode("ascii") for half in zmq.curve_keypair())
    text = json.dumps({"name": name, "public": public, "secret": secret})
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError:
        os.unlink(path)
        raise
    return Key(name, public, secret)


def load(name: str, directory: Path | None = None) -> Key:
    """Read the key pair ``name``.  Raises `EndpointError` if it is missing, damaged or open to others."""
    path = _path(name, directory)
    try:
        with open(path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if sys.platform != "win32" and stat.S_IMODE(status.st_mode) & 0o077:
                raise EndpointError(
                    f"{path} can be read by others; chmod 600 it, or make a new key if it leaked"
                )
            fields = json.load(file)
        return Key(name, _public(fields["public"]), _public(fields["secret"]))
    except FileNotFoundError:
        raise EndpointError(
            f"there is no key {name!r} in {path.parent}; make one with: mirage keys make {name}"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EndpointError(f"{path} is not a key: {error}") from None


def list_keys(directory: Path | None = None) -> tuple[Key, ...]:
    """The key pairs of this machine, by name."""
    place = directory or key_directory()
    return tuple(load(path.stem, place) for path in sorted(place.glob("*.key")))


def allow(name: str, public: str, directory: Path | None = None) -> None:
    """Let the game with this public key in, under ``name``; an earlier key of that name is replaced."""
    _checked(name)
    _write("allowed.json", _read("allowed.json", directory) | {name: _public(public)}, directory)


def revoke(name: str, directory: Path | None = None) -> bool:
    """Let ``name`` in no more; a game that plays under it is sent away.  False if nobody had that name."""
    entries = _read("allowed.json", directory)
    if entries.pop(name, None) is None:
        return False
    _write("allowed.json", entries, directory)
    return True


def allowed(directory: Path | None = None) -> dict[str, str]:
    """The allow-list: name -> public key."""
    return _read("allowed.json", directory)


def trust(endpoint: str, public: str, directory: Path | None = None) -> None:
    """Remember the public key of the sidecar at ``endpoint``."""
    _write("hosts.json", _read("hosts.json", directory) | {endpoint: _public(public)}, directory)


def trusted(endpoint: str, directory: Path | None = None) -> str | None:
    """The public key of the sidecar at ``endpoint``, if it is known."""
    return _read("hosts.json", directory).get(endpoint)


def credentials(endpoint: str, name: str = "game", directory: Path | None = None) -> Credentials:
    """What this machine needs to reach ``endpoint``.  Raises `EndpointError` saying what is missing."""
    public = trusted(endpoint, directory)
    if public is None:
        raise EndpointError(
            f"{endpoint} is on another machine and its key is not known here; on that machine run: "
            f"mirage keys list, and here: mirage keys trust {endpoint} KEY"
        )
    return Credentials(load(name, directory), public)


def _path(name: str, directory: Path | None) -> Path:
    return (directory or key_directory()) / f"{_checked(name)}.key"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a key's name; use letters, digits, '.', '-' and '_'")
    return name


def _public(text: object) -> str:
    if not isinstance(text, str) or len(text) != _PUBLIC_CHARS:
        raise ValueError(f"a key has {_PUBLIC_CHARS} characters")
    try:
        zmq.utils.z85.decode(text)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{text!r} is not a key: it has a character that no key has") from error
    return text


def _place(directory: Path | None) -> Path:
    place = directory or key_directory()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def _read(name: str, directory: Path | None) -> dict[str, str]:
    try:
        fields = json.loads(((directory or key_directory()) / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise EndpointError(f"{_place(directory) / name} is damaged: {error}; restore or delete it") from None
    if not isinstance(fields, dict) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in fields.items()
    ):
        raise EndpointError(f"{_place(directory) / name} is damaged; restore or delete it")
    return fields


def _write(name: str, fields: Mapping[str, str], directory: Path | None) -> None:
    place = _place(directory)
    fd, temporary = tempfile.mkstemp(dir=place)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(dict(sorted(fields.items())), file, indent=1)
            file.write("\n")
        os.replace(temporary, place / name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
