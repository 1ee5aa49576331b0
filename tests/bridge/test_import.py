"""What a game process pays for the bridge, and what the package shows."""

from __future__ import annotations

import subprocess
import sys

import mirage_bridge


def test_import_loads_no_torch_and_little_else() -> None:
    code = (
        "import sys, mirage_bridge;"
        "heavy = {'torch', 'pygame', 'mirage_plugin', 'mirage_kernels', 'asyncio', 'multiprocessing'};"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.strip()
    assert "torch" not in loaded
    assert "mirage" not in loaded
    assert "pygame" not in loaded


def test_every_public_name_exists_and_says_what_it_is() -> None:
    for name in mirage_bridge.__all__:
        thing = getattr(mirage_bridge, name)
        if callable(thing) and name != "Event":
            assert thing.__doc__, name
    assert list(mirage_bridge.__all__) == sorted(mirage_bridge.__all__, key=lambda n: (not n.isupper(), n))
