"""What each package promises: an explicit, sorted, importable and documented `__all__`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from types import ModuleType

import pytest

PACKAGES = ("mirage_bridge", "mirage_kernels", "mirage_plugin")

# Stable: a name that goes or comes here is a change for the CHANGELOG.
PLUGIN_API = [
    "DEVICES",
    "TIERS",
    "ConfigError",
    "DataError",
    "Device",
    "DeviceError",
    "MirageError",
    "MissingDependencyError",
    "NoSidecarError",
    "OutputError",
    "ServeConfig",
    "Tier",
    "TierChoice",
    "TrainConfig",
    "UnknownStyleError",
    "WeightsError",
    "__version__",
    "choose_tier",
    "parse_size",
]


def modules() -> list[str]:
    """Every module of the three packages; those that run as programs are left out."""
    names = []
    for package in PACKAGES:
        names.append(package)
        path = importlib.import_module(package).__path__
        names += [info.name for info in pkgutil.walk_packages(path, f"{package}.")]
    return [name for name in names if not name.endswith(".__main__")]


def order(name: str) -> tuple[int, list[tuple[int, str]]]:
    """ruff's order of `__all__`: constants, classes, the rest; digits in names count as numbers."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, [
        (int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name) if part
    ]


@pytest.fixture(params=modules())
def module(request: pytest.FixtureRequest) -> ModuleType:
    name: str = request.param
    return importlib.import_module(name)


def test_all_is_explicit_and_sorted(module: ModuleType) -> None:
    assert "__all__" in vars(module), f"{module.__name__} has no __all__"
    names = list(module.__all__)
    assert len(set(names)) == len(names)
    assert names == sorted(names, key=order)


def test_every_public_name_exists_and_is_documented(module: ModuleType) -> None:
    assert inspect.getdoc(module), f"{module.__name__} has no docstring"
    undocumented = []
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            # Not getdoc: an inherited docstring says nothing of this class.
            if not value.__doc__:
                undocumented.append(name)
            elif inspect.isclass(value) and value.__doc__.startswith(f"{value.__name__}("):
                undocumented.append(f"{name} (only what dataclass wrote)")
    assert not undocumented, f"{module.__name__}: no docstring on {', '.join(undocumented)}"


def test_the_plugin_promises_these_names() -> None:
    assert importlib.import_module("mirage_plugin").__all__ == PLUGIN_API


def test_the_installed_version_is_the_code_s() -> None:
    from importlib.metadata import version

    from mirage_plugin import __version__

    assert version("mirage-plugin") == __version__
