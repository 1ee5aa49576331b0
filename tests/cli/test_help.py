"""The help reads well: every command and option says what it is for, and it answers at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer.main

from mirage_plugin import __version__
from mirage_plugin.__main__ import main
from mirage_plugin.cli import app

COMMANDS = ["demo", "serve", "train", "eval", "styles", "worlds", "restyle", "keys", "profile", "doctor"]
GROUP = typer.main.get_command(app)
KEYS = ["make", "list", "allow", "revoke", "trust"]


def test_the_commands_are_these() -> None:
    assert sorted(GROUP.commands) == sorted(COMMANDS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    command = GROUP.commands[name]  # type: ignore[attr-defined]
    assert command.help
    if name == "keys":
        assert sorted(command.commands) == sorted(KEYS)
        assert all(each.help for each in command.commands.values())
        return
    assert len(command.help.split("\n\n")[0]) <= 88, "the first line must fit beside the command's name"
    assert "Examples" in command.epilog
    for parameter in command.params:
        assert parameter.help, f"--{parameter.name} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_is_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert f"Usage: mirage {name}" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mirage {__version__}\n"


def test_the_help_needs_no_torch() -> None:
    program = (
        "import sys\n"
        "from mirage_plugin.__main__ import main\n"
        "main(['--help'])\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0
