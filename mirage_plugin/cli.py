"""The `mirage` command: what can be asked for, and nothing of how it is done.

Each command imports its implementation when it is called: `mirage --help` needs no torch and answers at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from mirage_plugin import __version__
from mirage_plugin.config import Device, ServeConfig, Tier, TierChoice, TrainConfig

__all__ = ["app"]

app = typer.Typer(
    name="mirage",
    help="Real-time AI restyling for games: a sidecar redraws every frame, and the game never waits for it.",
    epilog="Start with [bold]mirage demo[/bold]. What this machine can run: [bold]mirage doctor[/bold].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    add_completion=False,
)

PLAY, STYLE, TRAIN, LOOK = "Play", "Styles and pictures", "Train and judge", "Look inside"

TierOption = Annotated[
    TierChoice, typer.Option(help="Size of the model; [bold]auto[/bold] takes what this machine can run.")
]
DeviceOption = Annotated[
    Device, typer.Option(help="Where it computes; [bold]auto[/bold] takes CUDA where there is one.")
]
StyleOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="A style of [bold]mirage styles[/bold], or a preset file.")
]
SeedOption = Annotated[
    int,
    typer.Option(
        metavar="N", min=0, max=2**63 - 1, help="Fixes everything random; the same seed gives the same result."
    ),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", dir_okay=False, help="Also write the figures here.")
]


def _examples(*lines: str) -> str:
    """The end of a command's help: one example a line."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"[cyan]{line}[/cyan]" for line in lines)])


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mirage {__version__}")
        raise typer.Exit


WeightsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", dir_okay=False, help="Weights of your own.", show_default="the tier's"),
]


@app.callback()
def _mirage(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Hold the options that come before a command."""


@app.command(
    rich_help_panel=PLAY,
    epilog=_examples("mirage demo", "mirage demo --style ink --size 1280x720", "mirage demo --headless"),
)
def demo(
    headless: Annotated[
        bool | None,
        typer.Option(
            "--headless/--window",
            help="Play by autopilot without a window, or in one.",
            show_default="a window where there is a display",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Stop after so many frames.", show_default="300 headless, else no end"
        ),
    ] = None,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the game's frames.")] = "640x360",
    seed: SeedOption = 0,
    out: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Where pictures and video are written.")
    ] = Path("out/demo"),
    tier: TierOption = "auto",
    device: DeviceOption = "auto",
    style: StyleOption = None,
    weights: WeightsOption = None,
    json: JsonOption = None,
) -> None:
    """Play the sample game while a sidecar of its own redraws it.

    With a display, in a window: 1-9 change the style, Tab wipes before and after, F1 shows the budget.

    Headless, it plays itself, prints the frame-budget table and writes a contact sheet and a video.
    """
    from mirage_plugin.demo import demo as run
    from mirage_plugin.doctor import display_name

    if headless is None:
        headless = display_name() is None
    run(
        headless=headless,
        frames=frames if frames is not None else (300 if headless else 0),
        size=size,
        seed=seed,
        out=out,
        tier=tier,
        device=device,
        style=style,
        weights=weights,
        json=json,
    )


@app.command(
    rich_help_panel=PLAY,
    epilog=_examples(
        "mirage serve",
        "mirage serve --tier nano --device cpu --style ink",
        "mirage serve --bind tcp://127.0.0.1:7788",
    ),
)
def serve(
    tier: TierOption = "auto",
    device: DeviceOption = "auto",
    style: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help='The style of games that ask for "", and one more that games may name.'),
    ] = None,
    weights: WeightsOption = None,
    bind: Annotated[
        str | None,
        typer.Option(
            metavar="ENDPOINT",
            help="Where games connect: ipc://PATH or tcp://HOST:PORT.",
            show_default="this user's own",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(metavar="N", help="Denoising steps a frame: 1, 2 or 4; more is slower, and little better.")
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Threads that share a frame's work on a CPU.",
            show_default="half of the cores, 2 to 4",
        ),
    ] = None,
    compile: Annotated[
        bool,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the network first: seconds at the first start, then several times as fast.",
        ),
    ] = True,
    json: JsonOption = None,
) -> None:
    """Start the sidecar that redraws the frames of every game that connects.

    It loads, warms up and then says that it is ready; Ctrl-C or SIGTERM drains and stops it.
    """
    config = ServeConfig(
        tier=tier,
        device=device,
        style=style,
        bind=bind,
        steps=steps,
        threads=threads,
        compile=compile,
        weights=weights,
        json=json,
    )
    from mirage_plugin.sidecar import serve as run

    run(config=config)


@app.command(
    rich_help_panel=STYLE,
    epilog=_examples(
        "mirage styles", "mirage styles --sheet out/styles.png",
        "mirage styles --from painting.jpg --out mine.toml", "mirage demo --style mine.toml",
    ),
)  # fmt: skip
def styles(
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Draw every style on one scene into this picture."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="STYLE|IMAGE,…",
            help="Write this style, or that of one to eight pictures, as a style file.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="The style file of --from.", show_default="print it"),
    ] = None,
    json: JsonOption = None,
) -> None:
    """List the styles by family, draw them all on one sheet, or write one as a file to edit."""
    if source is None and out is not None:
        raise typer.BadParameter("it is the style file of --from: name a style or a picture there", param_hint="--out")
    if source is not None and (sheet is not None or json is not None):
        raise typer.BadParameter("it writes a style file alone: leave --sheet and --json out", param_hint="--from")
    if source is None:
        from mirage_plugin.styles import show

        show(sheet=sheet, json=json)
    else:
        from mirage_plugin.styles import write_style

        write_style(source, out)


@app.command(
    rich_help_panel=STYLE,
    epilog=_examples(
        "mirage restyle --frames shots/ --style ink --out restyled/ --stills",
        "mirage restyle --frames play.mp4 --style painting.jpg --out play-painted.mp4",
    ),
)
def restyle(
    frames: Annotated[
        Path, typer.Option(metavar="DIR|VIDEO", exists=True, help="A folder of pictures, or a video.")
    ],
    style: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="A style, a style file, or pictures to take it from.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR|FILE", help="A folder, a picture or a video for what is redrawn.")],
    strength: Annotated[
        float, typer.Option(metavar="S", min=0.0, max=1.0, help="From 0, untouched, to 1.")
    ] = 1.0,
    tier: TierOption = "auto",
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    weights: WeightsOption = None,
    json: JsonOption = None,
    stills: Annotated[
        bool, typer.Option("--stills", help="Pictures of their own, not the frames of one recording.")
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option(metavar="N", help="Frames a second of a video made of a folder.", show_default="30"),
    ] = None,
) -> None:
    """Redraw recorded frames or a video, as if it were being played."""
    from mirage_plugin.restyle import restyle as run

    run(
        frames=frames, style=style, out=out, strength=strength, tier=tier, device=device, seed=seed, json=json,
        weights=weights, stills=stills, fps=fps,
    )  # fmt: skip


@app.command(
    rich_help_panel=TRAIN,
    epilog=_examples("mirage worlds --out out/worlds", "mirage worlds --out pairs --clips 64 --style ink"),
)
def worlds(
    out: Annotated[Path, typer.Option(metavar="DIR", file_okay=False, help="Folder to write the pairs to.")],
    clips: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of clips, each in a scene of its own.")
    ] = 8,
    frames: Annotated[int, typer.Option(metavar="N", min=1, help="Frames a clip.")] = 6,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of a frame.")] = "256x144",
    seed: SeedOption = 0,
    style: Annotated[
        str | None, typer.Option(metavar="NAME", help="One style for all.", show_default="a random one each")
    ] = None,
) -> None:
    """Draw paired scenes, plain and restyled, into a folder that train reads."""
    from mirage_plugin.train.worlds import write

    write(out=out, clips=clips, frames=frames, size=size, seed=seed, style=style)


@app.command(
    rich_help_panel=TRAIN,
    epilog=_examples("mirage train --minutes 60", "mirage train --tier base --device cuda --minutes 20"),
)
def train(
    tier: Annotated[Tier, typer.Option(help="Size of the model.")] = "nano",
    minutes: Annotated[
        float, typer.Option(metavar="M", help="Train for so long from now on; a run can be continued later.")
    ] = 60.0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="The run's folder.", show_default="runs/TIER"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Continue the run in that folder, or begin anew.")
    ] = True,
    device: DeviceOption = "auto",
    seed: SeedOption = 0,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your own pairs.", show_default="worlds drawn as it trains"),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", dir_okay=False, help="Weights of this tier to begin from.",
            show_default="random ones",
        ),
    ] = None,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Train what reads a style off pictures, for every tier, in place of a model."),
    ] = False,
    ablation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", hidden=True, help="Train on clips alone, from --from, with one part of the design left out."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Compute threads on a CPU.")] = 1,
    json: JsonOption = None,
) -> None:
    """Train a model on paired worlds or on your own pairs. Ctrl-C loses nothing."""
    config = TrainConfig(
        tier=tier,
        minutes=minutes,
        out=out,
        resume=resume,
        device=device,
        seed=seed,
        data=data,
        start=start,
        reference=reference,
        ablation=ablation,
        threads=threads,
        json=json,
    )
    from mirage_plugin.train.trainer import train as run

    run(config=config)


@app.command(
    "eval",
    rich_help_panel=TRAIN,
    epilog=_examples("mirage eval --quick", "mirage eval --time --json out/time.json"),
)
def evaluate(
    tier: TierOption = "auto",
    seed: SeedOption = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer scenes and styles.")] = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", file_okay=False, help="Where plots and contact sheets are written.")
    ] = Path("out/eval"),
    json: JsonOption = None,
    weights: WeightsOption = None,
    time: Annotated[bool, typer.Option("--time", help="Over time: flicker, memory, drift.")] = False,
) -> None:
    """Measure the model on unseen scenes and styles, beside the baselines it must beat."""
    from mirage_plugin.train.evaluation import evaluate as run

    run(tier=tier, seed=seed, quick=quick, out=out, json=json, weights=weights, time=time)


@app.command(
    rich_help_panel=LOOK,
    epilog=_examples(
        "mirage profile --seconds 30 --html out/profile.html",
        "mirage profile --attach ipc:///run/user/1000/mirage/bridge",
        "mirage profile --compare before.json after.json",
    ),
)
def profile(
    attach: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="Watch a sidecar that is running.")
    ] = None,
    read: Annotated[
        Path | None, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Look at a recording.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="What changed between two results; exits with 1 if B is worse."),
    ] = None,
    overhead: Annotated[bool, typer.Option("--overhead", help="Measure what recording costs.")] = False,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the frames.")] = "640x360",
    fps: Annotated[
        float, typer.Option(metavar="N", min=1.0, help="Frames a second that each game sends.")
    ] = 60.0,
    sessions: Annotated[int, typer.Option(metavar="N", min=1, help="Games at once.")] = 1,
    seconds: Annotated[float, typer.Option(metavar="N", min=0.1, help="How long.")] = 10.0,
    tier: TierOption = "auto",
    device: DeviceOption = "auto",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write a report with plots.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write a trace for the Perfetto UI.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Write PresentMon's columns.")
    ] = None,
    prometheus: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=1, max=65535, help="Serve metrics on this port of the loopback address."),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Show where each frame's time goes, against the budget.

    Runs a workload of its own, or looks at a running sidecar or a recording.
    """
    if sum((attach is not None, read is not None, compare is not None, overhead)) > 1:
        raise typer.BadParameter("choose one of --attach, --read, --compare and --overhead")
    unused: dict[str, object] = (
        {"--html": html, "--trace": trace, "--csv": csv} if compare is not None or overhead else {}
    )
    if compare is not None or overhead or read is not None:
        unused["--prometheus"] = prometheus
    for option in (name for name, value in unused.items() if value is not None):
        raise typer.BadParameter("there is nothing for it to show here", param_hint=option)
    from mirage_plugin.profiler import profile as run

    raise typer.Exit(
        run(
            attach=attach,
            read=read,
            compare=compare,
            overhead=overhead,
            size=size,
            fps=fps,
            sessions=sessions,
            seconds=seconds,
            tier=tier,
            device=device,
            html=html,
            trace=trace,
            csv=csv,
            prometheus=prometheus,
            json=json,
        )
    )


keys = typer.Typer(help="The keys that let a game on another machine in.", no_args_is_help=True)
app.add_typer(keys, name="keys", rich_help_panel=LOOK)

KeyDirectory = Annotated[
    Path | None,
    typer.Option("--directory", metavar="DIR", file_okay=False, help="Where keys lie.", show_default="this user's own"),
]


@keys.command("make", epilog=_examples("mirage keys make host", "mirage keys make game"))
def keys_make(name: str, directory: KeyDirectory = None) -> None:
    """Make a key pair and print its public half. The sidecar's own is called host, a game's game."""
    from mirage_bridge import keys as store

    with _as_config_error():
        typer.echo(store.make(name, directory).public)


@keys.command("list")
def keys_list(directory: KeyDirectory = None) -> None:
    """List this machine's keys and the games that are let in."""
    from mirage_bridge import keys as store

    with _as_config_error():
        for key in store.list_keys(directory):
            typer.echo(f"key      {key.name}  {key.public}")
        for name, public in sorted(store.allowed(directory).items()):
            typer.echo(f"allowed  {name}  {public}")


# A key may begin with a dash.
_KEYS: dict[str, Any] = {"context_settings": {"ignore_unknown_options": True}}


@keys.command("allow", **_KEYS, epilog=_examples("mirage keys allow living-room 'PUBLIC KEY'"))
def keys_allow(name: str, public: str, directory: KeyDirectory = None) -> None:
    """Let the game with this public key in."""
    from mirage_bridge import keys as store

    with _as_config_error():
        store.allow(name, public, directory)


@keys.command("revoke")
def keys_revoke(name: str, directory: KeyDirectory = None) -> None:
    """Let a game in no more."""
    from mirage_bridge import keys as store
    from mirage_plugin.errors import ConfigError

    with _as_config_error():
        if not store.revoke(name, directory):
            raise ConfigError(f"nobody is let in as {name!r}: `mirage keys list` shows who is")


@keys.command("trust", **_KEYS, epilog=_examples("mirage keys trust tcp://192.0.2.7:7788 'PUBLIC KEY'"))
def keys_trust(endpoint: str, public: str, directory: KeyDirectory = None) -> None:
    """Remember the public key of a sidecar on another machine."""
    from mirage_bridge import keys as store

    with _as_config_error():
        store.trust(endpoint, public, directory)


@contextlib.contextmanager
def _as_config_error() -> Iterator[None]:
    """The key store knows names and files, not the command line: its complaints become a sentence and exit code 2."""
    from mirage_plugin.errors import ConfigError

    try:
        yield
    except FileExistsError as error:
        raise ConfigError(f"there is a key at {error.filename}: remove it first if no machine trusts it") from error
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be used ({error.strerror}): choose another --directory") from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


@app.command(rich_help_panel=LOOK, epilog=_examples("mirage doctor", "mirage doctor --json out/doctor.json"))
def doctor(json: JsonOption = None) -> None:
    """Say what this machine can run, and how to mend what is missing.

    Exits with 1 only where no sidecar can run here.
    """
    from mirage_plugin.doctor import doctor as run

    raise typer.Exit(0 if run(json=json).can_serve else 1)
