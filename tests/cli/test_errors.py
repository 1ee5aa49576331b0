"""What a user sees when something is wrong: one sentence, the right exit code, no traceback."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest

from mirage_bridge.errors import BridgeError
from mirage_plugin.__main__ import main
from mirage_plugin.errors import MirageError, MissingDependencyError, UnknownStyleError, WeightsError


@pytest.fixture
def failing_styles(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stand in for the module behind `mirage styles`; a test sets what its `show` raises."""
    module = ModuleType("mirage_plugin.styles")
    monkeypatch.setitem(sys.modules, "mirage_plugin.styles", module)
    return module


def raising(error: BaseException) -> object:
    def show(**_: object) -> NoReturn:
        raise error

    return show


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownStyleError("inkk", ["ink", "noir"]), 2),
        (WeightsError.missing("base", Path("weights/base.safetensors")), 2),
        (MirageError("a [bracket] is no markup: leave it"), 2),
        (BridgeError("the endpoint is taken: choose another"), 2),
        (MissingDependencyError("torch"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_an_expected_error_is_one_sentence(
    error: BaseException, code: int, failing_styles: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    vars(failing_styles).update(show=raising(error))
    assert main(["styles"]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.strip() == (f"mirage: {error}" if str(error) else "")


def test_a_missing_package_says_which_line_brings_it(
    failing_styles: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    vars(failing_styles).update(show=raising(ModuleNotFoundError("No module named 'torch'", name="torch.nn")))
    assert main(["styles"]) == 1
    assert 'pip install "mirage-plugin[sidecar]"' in capsys.readouterr().err


def test_a_bug_leaves_its_traceback_in_a_file(
    failing_styles: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("MIRAGE_DEBUG", raising=False)
    vars(failing_styles).update(show=raising(ZeroDivisionError("seven")))
    assert main(["styles"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said
    path = re.search(r"the traceback is in (\S+);", said)
    assert path is not None
    kept = Path(path[1]).read_text(encoding="utf-8")
    assert "Traceback" in kept
    assert "ZeroDivisionError: seven" in kept


def test_debugging_shows_the_traceback(
    failing_styles: ModuleType,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("MIRAGE_DEBUG", "1")
    vars(failing_styles).update(show=raising(ZeroDivisionError("seven")))
    assert main(["styles"]) == 1
    assert "ZeroDivisionError: seven" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["serv"], "Did you mean 'serve'"),
        (["serve", "--teir", "nano"], "No such option: --teir"),
        (["serve", "--tier", "huge"], "'auto', 'nano', 'small', 'base'"),
        (["serve", "--steps", "3"], "steps must be one of 1, 2, 4"),
        (["serve", "--threads", "0"], "--threads"),
        (["train", "--minutes", "0"], "minutes must be more than 0"),
        (["restyle", "--frames", "/no/such/place", "--style", "ink", "--out", "x"], "does not exist"),
        (["worlds"], "Missing option"),
        (["profile", "--attach", "ipc://x", "--compare", "a", "b"], "choose one of"),
        (["profile", "--compare", "a", "b", "--html", "x.html"], "--html"),
        (["profile", "--read", __file__, "--overhead"], "choose one of"),
        (["styles", "--out", "mine.toml"], "--out"),
        (["styles", "--from", "ink", "--json", "x.json"], "--from"),
        (["restyle", "--seed", str(2**63), "--frames", ".", "--style", "ink", "--out", "x"], "--seed"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_wrong_use_is_refused_by_name(line: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 2
    said = capsys.readouterr().err
    assert says in re.sub(r"[\s│]+", " ", said)
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_is_silent() -> None:
    program = (
        "import sys, types, time\n"
        "styles = types.ModuleType('mirage_plugin.styles')\n"
        "def show(**_):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n"
        "styles.show = show\n"
        "sys.modules['mirage_plugin.styles'] = styles\n"
        "from mirage_plugin.__main__ import main\n"
        "sys.exit(main(['styles']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert said.strip() == ""


@pytest.mark.parametrize("absent", ["typer", "rich"])
def test_without_the_extra_it_says_how_to_install_it(absent: str, tmp_path: Path) -> None:
    # A finder in front of the others hides the package, as if the extra had not been installed.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {absent!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-m", "mirage_plugin", "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == 'mirage: the command line is not installed: pip install "mirage-plugin[sidecar]"\n'


def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path: Path) -> None:
    """`timeout` and service managers say SIGTERM: what a command began is cleaned up."""
    program = (
        "import signal, sys, os\n"
        "from mirage_plugin import styles\n"
        "from mirage_plugin.files import whole_file\n"
        "from pathlib import Path\n"
        "def show(**_):\n"
        f"    with whole_file(Path({str(tmp_path / 'x.txt')!r})) as part:\n"
        "        part.write_text('half')\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "styles.show = show\n"
        "from mirage_plugin.__main__ import main\n"
        "sys.exit(main(['styles']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, "")
    assert list(tmp_path.iterdir()) == []


def test_a_mark_that_the_terminal_lacks_stops_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mirage_plugin", "doctor"], capture_output=True, timeout=120,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )  # fmt: skip
    assert b"unexpected" not in done.stderr
    assert b"Python" in done.stdout
