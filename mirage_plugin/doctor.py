"""What this machine can run, which tier that means, and the line that mends each thing missing.

`examine` finds out and returns plain data; `doctor` prints it. Nothing here needs torch to be installed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from mirage_plugin import __version__
from mirage_plugin.config import TIERS, Tier, choose_tier, weights_directory
from mirage_plugin.files import write_json

__all__ = ["Check", "Diagnosis", "State", "display_name", "doctor", "examine"]

State = Literal["ok", "absent", "broken"]
"""ok: there. absent: not there, and a sidecar runs without it. broken: not there, and none does."""

_PIP_SIDECAR = 'pip install "mirage-plugin[sidecar]"'
_APT = "sudo apt-get install"
# Six slots of a 4K frame of four bytes a pixel, which is what one session may ask for.
_SESSION_BYTES = 6 * 3840 * 2160 * 4


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked for on this machine."""

    name: str
    state: State
    found: str
    """What is there, in words."""
    mend: str = ""
    """What to do, a shell line where there is one; empty where nothing needs mending."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The same as plain numbers and strings, for programs."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that was found, and what follows from it."""

    checks: tuple[Check, ...]
    tier: Tier | None
    """What `--tier auto` means here; None where no tier has weights."""
    device: Literal["cpu", "cuda"]

    @property
    def can_serve(self) -> bool:
        """Whether a sidecar can run here at all."""
        return self.tier is not None and not any(check.state == "broken" for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as plain data: `{"mirage", "can_serve", "tier", "device", "checks": [...]}`."""
        return {
            "mirage": __version__,
            "can_serve": self.can_serve,
            "tier": self.tier,
            "device": self.device,
            "checks": [dataclasses.asdict(check) for check in self.checks],
        }


def display_name() -> str | None:
    """Name the display that a window could open on, or None where there is none."""
    if sys.platform == "win32":
        return "Windows"
    if sys.platform == "darwin":
        return "macOS"
    if wayland := os.environ.get("WAYLAND_DISPLAY"):
        return f"Wayland {wayland}"
    if x11 := os.environ.get("DISPLAY"):
        return f"X11 {x11}"
    return None


def examine() -> Diagnosis:
    """Look at this machine. Takes as long as importing torch; raises nothing for what is missing."""
    gpu = _check_cuda()
    weights = _check_weights()
    available = [tier for tier in TIERS if weights.facts[tier]]
    tier = (
        choose_tier(
            available,
            multiprocessors=gpu.facts.get("multiprocessors"),
            memory_bytes=gpu.facts.get("memory_bytes"),
        )
        if available
        else None
    )
    checks = (
        _check_python(),
        _check_base_packages(),
        _check_torch(),
        _check_sidecar_packages(),
        _check_processor(),
        gpu,
        _check_triton(),
        _check_c_compiler(),
        _check_compiler(),
        _check_shared_memory(),
        _check_endpoint(),
        _check_display(),
        _check_package(
            "game window", "pygame", 'pip install "mirage-plugin[game]"', "the sample game needs it"
        ),
        _check_package("video", "av", _PIP_SIDECAR, "without it no video is read or written"),
        weights,
    )
    return Diagnosis(checks, tier, "cuda" if gpu.state == "ok" else "cpu")


def doctor(*, json: Path | None = None) -> Diagnosis:
    """Examine this machine, print a table, and write the same to `json` where it is given.

    Raises `OutputError` where `json` cannot be written.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    with console.status("looking around"):
        diagnosis = examine()
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for column in ("state", "name", "found"):
        table.add_column(column, no_wrap=column != "found", overflow="fold")
    marks = {"ok": ("✓", "green"), "absent": ("–", "yellow"), "broken": ("✗", "bold red")}
    for check in diagnosis.checks:
        found = Text(check.found)
        if check.mend:
            found.append(f"\n→ {check.mend}", style="yellow" if check.state == "absent" else "red")
        table.add_row(Text(*marks[check.state]), check.name, found)
    console.print(Text(f"Mirage {__version__} on this machine\n", style="bold"))
    console.print(table)
    if diagnosis.can_serve:
        verdict = f"This machine runs tier {diagnosis.tier} on the {_DEVICE_WORDS[diagnosis.device]}."
        console.print(Text(f"\n{verdict} Try: mirage demo", style="bold green"))
    else:
        console.print(Text("\nNo sidecar can run here yet: mend what is marked ✗.", style="bold red"))
    if json is not None:
        write_json(json, diagnosis.as_json())
    return diagnosis


_DEVICE_WORDS = {"cpu": "CPU", "cuda": "GPU"}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _check_python() -> Check:
    version = platform.python_version()
    found = f"{platform.python_implementation()} {version}, {platform.system()} {platform.machine()}"
    return Check("Python", "ok", found, facts={"version": version, "executable": sys.executable})


def _check_base_packages() -> Check:
    versions = {name: _version(name) for name in ("numpy", "pyzmq", "msgpack")}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        return Check(
            "base packages",
            "broken",
            f"no {', '.join(missing)}",
            f"pip install {' '.join(missing)}",
            versions,
        )
    return Check("base packages", "ok", ", ".join(f"{n} {v}" for n, v in versions.items()), facts=versions)


def _check_torch() -> Check:
    versions = {name: _version(name) for name in ("torch", "safetensors")}
    if missing := [name for name, version in versions.items() if version is None]:
        return Check("torch", "broken", f"no {', '.join(missing)}", _PIP_SIDECAR, versions)
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        why = str(error).strip().splitlines()[0]
        return Check(
            "torch", "broken", f"does not load: {why}", "pip install --force-reinstall torch", versions
        )
    found = f"{torch.__version__}, safetensors {versions['safetensors']}"
    return Check("torch", "ok", found, facts={**versions, "cuda_build": torch.version.cuda})


def _check_processor() -> Check:
    cores = os.cpu_count() or 1
    features = _processor_features()
    fast = [name for name in ("amx", "avx512_bf16", "avx512", "avx2") if name in features]
    facts = {"cores": cores, "features": fast, "bf16": bool({"amx", "avx512_bf16"} & features)}
    found = f"{cores} core{'s' * (cores > 1)}, {', '.join(fast) or 'no AVX2'}"
    if not facts["bf16"]:
        # Nothing mends a processor: say what it means instead.
        found += " (no bf16 arithmetic: the CPU path computes in 16-bit integers and fp32)"
    return Check("processor", "ok", found, facts=facts)


def _processor_features() -> set[str]:
    """Which of the instruction sets that matter are there, as torch sees them."""
    try:
        import torch.cpu
    except (ImportError, OSError):
        return set()
    probes = {
        "amx": "_is_amx_tile_supported",
        "avx512_bf16": "_is_avx512_bf16_supported",
        "avx512": "_is_avx512_supported",
        "avx2": "_is_avx2_supported",
    }
    # torch does not promise these names: one that is gone counts as a feature that is not there.
    return {name for name, probe in probes.items() if getattr(torch.cpu, probe, lambda: False)()}


def _check_cuda() -> Check:
    try:
        import torch
    except (ImportError, OSError):
        return Check("GPU", "absent", "unknown without torch")
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") is None:
            return Check("GPU", "absent", "no NVIDIA GPU; not needed, tier nano runs on the CPU")
        if torch.version.cuda is None:
            mend = "install a CUDA build of torch 2.11 to 2.13: https://pytorch.org/get-started/locally"
            return Check("GPU", "absent", "an NVIDIA driver, but torch is a CPU build", mend)
        return Check("GPU", "absent", "an NVIDIA driver, but torch sees no device", "nvidia-smi")
    properties = torch.cuda.get_device_properties(0)
    facts = {
        "name": properties.name,
        "capability": [properties.major, properties.minor],
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "count": torch.cuda.device_count(),
    }
    found = (
        f"{properties.name}, capability {properties.major}.{properties.minor}, "
        f"{properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    )
    return Check("GPU", "ok", found, facts=facts)


def _check_sidecar_packages() -> Check:
    """What the sidecar imports beside torch."""
    missing = [module for module in ("safetensors", "numba", "cv2", "PIL") if importlib.util.find_spec(module) is None]
    if missing:
        return Check("sidecar", "broken", f"no {', '.join(missing)}; without it nothing is served", _PIP_SIDECAR)
    return Check("sidecar", "ok", "safetensors, numba, OpenCV, Pillow")


def _check_package(name: str, module: str, mend: str, meaning: str) -> Check:
    """A package that is good to have: `meaning` says what goes without it."""
    version = _version(module)
    if version is None and importlib.util.find_spec(module) is None:
        return Check(name, "absent", f"no {module}; {meaning}", mend)
    return Check(name, "ok", f"{module} {version or '(version unknown)'}", facts={"version": version})


def _check_triton() -> Check:
    if sys.platform != "linux":
        return Check("Triton", "absent", "Linux only; elsewhere the kernels' PyTorch forms are used")
    return _check_package("Triton", "triton", _PIP_SIDECAR, "the kernels' PyTorch forms are used")


def _check_c_compiler() -> Check:
    """What compiles the network for this processor. As `model.native.compilers`, which needs numba and OpenCV."""
    path = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if path is not None:
        return Check("C compiler", "ok", _first_line([path, "--version"]) or path, facts={"path": path})
    return _check_package("C compiler", "ziglang", _PIP_SIDECAR, "on a processor the network is several times slower")


def _check_compiler() -> Check:
    wanted = os.environ.get("CXX") or ("cl" if sys.platform == "win32" else "c++")
    candidates = [wanted, "g++", "clang++"]
    path = next((found for name in candidates if (found := shutil.which(name))), None)
    header = Path(sysconfig.get_path("include")) / "Python.h"
    facts = {"path": path, "python_h": header.is_file()}
    mend = {
        "win32": "install the Visual Studio Build Tools with the C++ workload",
        "darwin": "xcode-select --install",
    }.get(sys.platform, f"{_APT} build-essential python3-dev")
    if path is None:
        return Check("C++ compiler", "absent", "none; torch.compile is not used", mend, facts)
    if not header.is_file():
        return Check(
            "C++ compiler", "absent", f"{path}, but no Python.h; torch.compile is not used", mend, facts
        )
    return Check("C++ compiler", "ok", _first_line([path, "--version"]) or path, facts=facts)


def _first_line(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


def _check_shared_memory() -> Check:
    if sys.platform != "linux":
        return Check("shared memory", "ok", "named segments", facts={"memfd": False})
    sealed = _can_seal_memfd()
    shm = Path("/dev/shm")
    free = shutil.disk_usage(shm).free if shm.is_dir() else 0
    facts = {"memfd": sealed, "dev_shm_free_bytes": free}
    room = f"/dev/shm has {free / 2**30:.1f} GiB free"
    if sealed:
        return Check("shared memory", "ok", f"sealed memfd; {room}", facts=facts)
    if free < _SESSION_BYTES:
        mend = "allow memfd_create, or in a container: docker run --shm-size=1g"
        return Check("shared memory", "broken", f"no sealed memfd, and {room}", mend, facts)
    return Check("shared memory", "ok", f"no sealed memfd, so named segments; {room}", facts=facts)


def _can_seal_memfd() -> bool:
    """Try what the bridge does: an anonymous file that can be neither shrunk nor grown once shared."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fd = os.memfd_create("mirage-doctor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return False
    try:
        os.ftruncate(fd, 4096)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False
    finally:
        os.close(fd)


def _check_endpoint() -> Check:
    """Whether this user's default endpoint has a place to be."""
    try:
        from mirage_bridge import EndpointError, default_endpoint
        from mirage_bridge import endpoint as endpoints
    except ImportError:
        return Check("endpoint", "absent", "unknown without the base packages")
    endpoint = default_endpoint()
    facts = {"endpoint": endpoint}
    try:
        endpoints.check(endpoint)
    except EndpointError as error:
        return Check("endpoint", "absent", str(error), "set MIRAGE_ENDPOINT to ipc:///PATH or tcp://HOST:PORT", facts)
    if not endpoint.startswith("ipc://"):
        return Check("endpoint", "ok", endpoint, facts=facts)
    # The sidecar makes the last directories; what it needs is that the first existing one can be written.
    directory = Path(endpoint.removeprefix("ipc://")).parent
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    try:
        with tempfile.TemporaryDirectory(prefix="mirage-doctor-", dir=directory):
            pass
    except OSError as error:
        found = f"{endpoint}, but {directory} cannot be written ({error.strerror})"
        mend = "export XDG_RUNTIME_DIR=$(mktemp -d), for the game and the sidecar alike"
        return Check("endpoint", "broken", found, mend, facts)
    return Check("endpoint", "ok", endpoint, facts=facts)


def _check_display() -> Check:
    name = display_name()
    if name is None:
        found = "none; mirage demo plays headless and writes pictures"
        return Check("display", "absent", found, facts={"name": None})
    return Check("display", "ok", name, facts={"name": name})


def _check_weights() -> Check:
    directory = weights_directory()
    facts: dict[str, int] = {tier: _weights_bytes(directory, tier) for tier in TIERS}
    have = [f"{tier} {size / 1e6:.1f} MB" for tier, size in facts.items() if size]
    lack = [tier for tier, size in facts.items() if not size]
    if not have:
        return Check("weights", "broken", f"none in {directory}", "mirage train --tier nano", facts)
    found = ", ".join(have) + (f"; none for {', '.join(lack)}" if lack else "")
    return Check("weights", "ok", found, facts=facts)


def _weights_bytes(directory: Path, tier: str) -> int:
    """Bytes of a tier's weights, 0 where there are none."""
    path = directory / f"{tier}.safetensors"
    return path.stat().st_size if path.is_file() else 0
