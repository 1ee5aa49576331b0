"""The arena: a first-person game, drawn in software, that shows its frames as Mirage redraws them.

    python examples/game.py                         play
    python examples/game.py --autopilot             watch it play itself
    python examples/game.py --headless --frames 300 --json out/game.json

Collect every crystal, keep away from guards and orbs, and leave through the gate.

    W A S D, arrows   walk and turn           mouse    look around (click to begin, Esc to end)
    Shift             run                     O        autopilot on or off
    1 ... 9           style                   [ ]      strength
    Tab               before/after wipe       F1       frame budget
    P                 pause                   R        record to out/record
    L                 late warp               Esc      leave

With the late warp a picture is moved, just before it is shown, to where the player looks by then.

Without a sidecar the game plays on and shows its own frames; one that comes, goes or hangs meanwhile costs no
frame.
"""

import argparse
import contextlib
import json
import math
import os
import sys
import time
import warnings
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import numpy as np

import mirage_bridge

try:
    import pygame
except ImportError:
    sys.exit('The game needs pygame: pip install -e ".[game]"')

from arena.clock import FrameTimes
from arena.hud import GOLD, Hud
from arena.play import STEP_S, Controls, Game
from arena.record import Dump, Recorder, as_surface, open_recorder
from arena.renderer import Camera, Planes

STYLES = "snow,ink,cel,noir,watercolour,neon,desert,lava,night"
STAGES = ("play", "draw", "publish", "wait", "show")
PLANES = ("depth", "motion", "mask")
DELIVERIES = ("wait", "newest", "locked")
DRAWN_FRAMES, WARPED_FRAMES = 16, 8
"""So many frames are remembered until their answers come (250 ms at 60 a second: older ones are not shown), and of
so many the depth is kept for the late warp."""
MOUSE_TURN, MOUSE_LOOK = 0.0032, -0.0026
"""Radians a pixel."""
KEY_TURN, KEY_LOOK = 0.042, 0.02
"""Radians a step."""


@dataclass(frozen=True)
class Options:
    """What the command line asked for; see `--help`."""

    headless: bool
    frames: int
    autopilot: bool
    size: tuple[int, int]
    seed: int
    endpoint: str | None
    styles: tuple[str, ...]
    style: str
    strength: float
    style_cycle: int
    deliveries: tuple[str, ...]
    late_warp: bool
    budget_ms: float
    fps: float
    planes: tuple[str, ...]
    wait_s: float
    hud: bool
    record: Path | None
    dump: Path | None
    dump_every: int
    json: Path | None


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line; ends the process with a sentence where it makes no sense."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], epilog="Keys are listed at the top of this file."
    )
    parser.add_argument("--headless", action="store_true", help="no window; plays on autopilot")
    parser.add_argument(
        "--frames", type=int, default=0, metavar="N", help="stop after N frames (0: never; headless: 300)"
    )
    parser.add_argument("--autopilot", action="store_true", help="the game plays itself")
    parser.add_argument(
        "--size", type=_size, default=(640, 360), metavar="WxH", help="size of a frame (640x360)"
    )
    parser.add_argument("--seed", type=int, default=7, help="which arena (7)")
    parser.add_argument("--endpoint", help="the sidecar's address (this user's default)")
    parser.add_argument(
        "--styles", default=STYLES, metavar="A,B,C", help=f"styles of the keys 1 to 9 ({STYLES})"
    )
    parser.add_argument("--style", default=None, help="style to begin with (the first of --styles)")
    parser.add_argument("--strength", type=float, default=1.0, help="0 (the game's own picture) to 1 (1)")
    parser.add_argument(
        "--style-cycle", type=int, default=0, metavar="N", help="the next style every N frames (0: never)"
    )
    parser.add_argument(
        "--delivery", default="wait", metavar="A,B,C",
        help="how answers come: wait, newest or locked; several are played one after the other (wait)",
    )  # fmt: skip
    parser.add_argument(
        "--late-warp", action="store_true", help="move each picture to the newest camera just before it is shown"
    )
    parser.add_argument(
        "--budget-ms", type=float, default=16.67, help="how long an answer is waited for (16.67)"
    )
    parser.add_argument(
        "--fps", type=float, default=60.0, help="frames a second (60; 0: as many as there are)"
    )
    parser.add_argument(
        "--planes", default=",".join(PLANES), help="planes beside colour, or none (depth,motion,mask)"
    )
    parser.add_argument(
        "--wait-s", type=float, default=0.0, metavar="S", help="wait so long for a sidecar at the start (0)"
    )
    parser.add_argument("--no-hud", dest="hud", action="store_false", help="leave the HUD out")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="film what is shown: mp4, or PNGs without PyAV"
    )
    parser.add_argument("--dump", type=Path, metavar="DIR", help="write pairs of source and answer as PNG")
    parser.add_argument("--dump-every", type=int, default=1, metavar="K", help="every K-th frame of them (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of the run")
    given = parser.parse_args(arguments)
    styles = tuple(name for name in given.styles.split(",") if name)
    deliveries = tuple(dict.fromkeys(given.delivery.split(",")))
    if unknown := [name for name in deliveries if name not in DELIVERIES]:
        parser.error(f"--delivery: {', '.join(unknown)} is not known; known are {', '.join(DELIVERIES)}")
    planes = () if given.planes in ("", "none") else tuple(given.planes.split(","))
    if unknown := [name for name in planes if name not in PLANES]:
        parser.error(f"--planes: {', '.join(unknown)} is not known; known are {', '.join(PLANES)}, or none")
    if not styles:
        parser.error("--styles: name at least one style")
    if given.dump_every < 1 or given.frames < 0 or given.style_cycle < 0 or given.seed < 0 or given.fps < 0:
        parser.error("--frames, --style-cycle, --seed and --fps take 0 or more, --dump-every 1 or more")
    return Options(
        headless=given.headless,
        frames=given.frames or (300 if given.headless else 0),
        autopilot=given.autopilot or given.headless,
        size=given.size,
        seed=given.seed,
        endpoint=given.endpoint,
        # Key 1 brings one's own style back.
        styles=styles if given.style is None or given.style in styles else (given.style, *styles),
        style=given.style or styles[0],
        strength=given.strength,
        style_cycle=given.style_cycle,
        deliveries=deliveries,
        late_warp=given.late_warp,
        budget_ms=given.budget_ms,
        fps=given.fps,
        planes=planes,
        wait_s=given.wait_s,
        hud=given.hud,
        record=given.record,
        dump=given.dump,
        dump_every=given.dump_every,
        json=given.json,
    )


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write it as 640x360") from None
    if not (16 <= width <= 7680 and 16 <= height <= 4320):
        raise argparse.ArgumentTypeError(f"{text} is outside 16x16 to 7680x4320")
    return width, height


@dataclass
class Desk:
    """What the player has set with the keys."""

    style: str
    strength: float
    autopilot: bool
    late_warp: bool = False
    wipe: bool = False
    overlay: bool = False
    paused: bool = False
    quit: bool = False
    toggle_record: bool = False
    grabbed: bool = False
    note: str = ""
    note_until_s: float = 0.0
    late_turn: float = 0.0
    late_look: float = 0.0
    """Radians by which the mouse has moved since the last step was played."""

    def say(self, words: str) -> None:
        """Show a line for two seconds."""
        self.note, self.note_until_s = words, time.monotonic() + 2


def read_keys(desk: Desk, options: Options, session: mirage_bridge.Session) -> Controls:
    """Handle the events of this frame and say where the player wants to go."""
    turn, look = desk.late_turn, desk.late_look
    desk.late_turn = desk.late_look = 0.0
    for event in pygame.event.get():
        if event.type == pygame.QUIT:
            desk.quit = True
        elif event.type == pygame.MOUSEBUTTONDOWN and not desk.grabbed:
            _grab(desk, True)
        elif event.type == pygame.MOUSEMOTION and desk.grabbed:
            turn += event.rel[0] * MOUSE_TURN
            look += event.rel[1] * MOUSE_LOOK
        elif event.type == pygame.KEYDOWN:
            press(event.key, desk, options, session)
    held = pygame.key.get_pressed()
    turn += (held[pygame.K_RIGHT] - held[pygame.K_LEFT]) * KEY_TURN
    look += (held[pygame.K_PAGEUP] - held[pygame.K_PAGEDOWN]) * KEY_LOOK
    return Controls(
        ahead=float((held[pygame.K_w] or held[pygame.K_UP]) - (held[pygame.K_s] or held[pygame.K_DOWN])),
        aside=float(held[pygame.K_d] - held[pygame.K_a]),
        turn=turn,
        look_up=look,
        run=bool(held[pygame.K_LSHIFT] or held[pygame.K_RSHIFT]),
    )


def read_late(desk: Desk, steps: float) -> tuple[float, float]:
    """Look again where the player turns, `steps` steps after the last: radians to the right and up since then.

    What the mouse has moved is kept for the next `read_keys`: it turns the player once.
    """
    for event in pygame.event.get(pygame.MOUSEMOTION):
        if desk.grabbed:
            desk.late_turn += event.rel[0] * MOUSE_TURN
            desk.late_look += event.rel[1] * MOUSE_LOOK
    held = pygame.key.get_pressed()
    turn = (held[pygame.K_RIGHT] - held[pygame.K_LEFT]) * KEY_TURN * steps
    look = (held[pygame.K_PAGEUP] - held[pygame.K_PAGEDOWN]) * KEY_LOOK * steps
    return desk.late_turn + turn, desk.late_look + look


def press(key: int, desk: Desk, options: Options, session: mirage_bridge.Session) -> None:
    """One key going down."""
    if key == pygame.K_ESCAPE:
        if desk.grabbed:
            _grab(desk, False)
        else:
            desk.quit = True
    elif pygame.K_1 <= key <= pygame.K_9 and key - pygame.K_1 < len(options.styles):
        desk.style = options.styles[key - pygame.K_1]
        session.set_style(desk.style, strength=desk.strength)
        desk.say(f"Style: {desk.style}")
    elif key in (pygame.K_LEFTBRACKET, pygame.K_RIGHTBRACKET):
        step = 0.1 if key == pygame.K_RIGHTBRACKET else -0.1
        desk.strength = round(min(1.0, max(0.0, desk.strength + step)), 2)
        session.set_strength(desk.strength)
        desk.say(f"Strength: {desk.strength:.0%}")
    elif key == pygame.K_TAB:
        desk.wipe = not desk.wipe
    elif key == pygame.K_F1:
        desk.overlay = not desk.overlay
    elif key == pygame.K_o:
        desk.autopilot = not desk.autopilot
        desk.say("Autopilot on" if desk.autopilot else "Autopilot off")
    elif key == pygame.K_l:
        desk.late_warp = not desk.late_warp
        desk.say("Late warp on" if desk.late_warp else "Late warp off")
    elif key == pygame.K_r:
        desk.toggle_record = True
    elif key == pygame.K_p:
        desk.paused = not desk.paused
        if desk.paused:
            session.pause()
        else:
            session.resume()


def _grab(desk: Desk, grabbed: bool) -> None:
    desk.grabbed = grabbed
    pygame.event.set_grab(grabbed)
    pygame.mouse.set_visible(not grabbed)


@dataclass
class Tally:
    """What was shown, counted for the report."""

    frames: int = 0
    styled: int = 0
    reprojected: int = 0
    source: int = 0
    unanswered: int = 0
    aside_s: float = 0.0
    """Time spent writing pictures and films, which no player would spend."""
    why_unanswered: dict[str, int] = field(default_factory=dict)

    def count(self, answer: mirage_bridge.Answer) -> None:
        """One frame shown."""
        self.frames += 1
        if not answer.answered:
            self.unanswered += 1
            self.why_unanswered[answer.reason] = self.why_unanswered.get(answer.reason, 0) + 1
        elif answer.kind == "styled":
            self.styled += 1
        elif answer.kind == "reprojected":
            self.reprojected += 1
        else:
            self.source += 1


@dataclass(frozen=True)
class Drawn:
    """A frame on its way: its id, the input that it shows, and its camera and depth where it may be warped."""

    frame_id: int
    input_ns: int
    camera: Camera
    iz: np.ndarray[Any, np.dtype[np.float32]] | None


class Play:
    """The game loop: one `frame` after the other, until `run` says how it went."""

    def __init__(self, options: Options, delivery: str = "wait") -> None:
        self.options, self.delivery = options, delivery
        width, height = options.size
        self.session = mirage_bridge.Session(
            endpoint=options.endpoint,
            size=options.size,
            planes=options.planes,
            style=options.style,
            strength=options.strength,
            seed=options.seed,
            delivery=delivery,
            budget_ms=options.budget_ms,
            hold_frames=2,
        )
        if options.headless:
            self.screen = pygame.Surface(options.size, depth=32)
        else:
            pygame.display.init()
            with warnings.catch_warnings():
                # pygame warns where the scaling is done by the CPU; the game has nothing better to do about
                # it.
                warnings.filterwarnings("ignore", "no fast renderer available")
                self.screen = pygame.display.set_mode(options.size, pygame.SCALED | pygame.RESIZABLE)
            pygame.display.set_caption("Mirage: the arena")
        self.game = Game(options.seed)
        self.renderer = self.game.renderer(width, height)
        self.hud = Hud(self.game, height)
        self.desk = Desk(options.style, options.strength, options.autopilot, options.late_warp)
        self.times = FrameTimes(STAGES, options.budget_ms)
        self.tally = Tally()
        self.dump = Dump(options.dump) if options.dump else None
        self.recorder: Recorder | None = None
        if options.record:
            self._record(options.record)
        self._source: np.ndarray[Any, np.dtype[np.uint8]] | None = None
        self._drawn: deque[Drawn] = deque(maxlen=DRAWN_FRAMES)
        self._depths: deque[np.ndarray[Any, np.dtype[np.float32]]] = deque()
        self._warped = np.empty((height, width, 4), np.uint8)
        self._controls = Controls()
        self._stepped_ns = 0
        self._aside_s = 0.0

    def run(self) -> dict[str, Any]:
        """Play until the end or Ctrl-C; the figures of the run, as in `--json`."""
        options = self.options
        if options.wait_s:
            self.session.wait_ready(options.wait_s)
        started = due = time.monotonic()
        try:
            with contextlib.suppress(KeyboardInterrupt):
                while not self.desk.quit and (not options.frames or self.tally.frames < options.frames):
                    self.frame()
                    if options.fps:
                        due = self._pace(due + 1 / options.fps)
            elapsed_s = max(1e-9, time.monotonic() - started - self.tally.aside_s)
            return self._report(elapsed_s)
        finally:
            self.session.close()
            if self.dump:
                self.dump.close()
            if self.recorder:
                self.recorder.close()

    def frame(self) -> None:
        """One frame: read, play, draw, publish, wait, show."""
        clock = [time.perf_counter()]
        input_ns = time.monotonic_ns()
        desk, game, options = self.desk, self.game, self.options
        controls = Controls() if options.headless else read_keys(desk, options, self.session)
        if desk.autopilot:
            controls = game.autopilot()
        if not desk.paused:
            game.step(controls)
            self._controls, self._stepped_ns = controls, input_ns
        self._cycle_style()
        view = game.view()
        clock.append(time.perf_counter())
        frame = self.session.begin_frame()
        # The plain arrays are used up before `end_frame`.
        pixels, planes = np.asarray(frame.pixels), Planes()
        if frame.in_shared_memory:
            planes = Planes(_plain(frame.depth), _plain(frame.motion), _plain(frame.mask))
        depth = self._fresh_depth() if self._warps() else None
        self.renderer.draw(view, pixels, planes)
        clock.append(time.perf_counter())
        dumping = self.dump is not None and self.tally.frames % options.dump_every == 0
        self._source = pixels.copy() if desk.wipe or dumping else None
        del pixels, planes
        frame_id = self.session.end_frame(frame, camera_cut=game.camera_cut, input_ns=input_ns)
        self._drawn.append(Drawn(frame_id, input_ns, view.camera, depth))
        clock.append(time.perf_counter())
        with self.session.wait_answer(frame_id) as answer:
            clock.append(time.perf_counter())
            drawn = next((one for one in self._drawn if one.frame_id == answer.frame_id), None)
            late_ns = self._show(answer, drawn)
            if not options.headless:
                pygame.display.flip()
            clock.append(time.perf_counter())
            self._measure(answer, clock, drawn.input_ns if drawn else 0, late_ns)
            self._keep(answer, dumping)
            self.tally.count(answer)

    def _cycle_style(self) -> None:
        every = self.options.style_cycle
        if every and self.tally.frames and self.tally.frames % every == 0:
            styles = self.options.styles
            at = styles.index(self.desk.style) if self.desk.style in styles else -1
            self.desk.style = styles[(at + 1) % len(styles)]
            self.session.set_style(self.desk.style, strength=self.desk.strength)

    def _show(self, answer: mirage_bridge.Answer, drawn: Drawn | None) -> int:
        """Put the answer on the screen, straight from where it lies or warped, and the HUD over it.

        Returns when the input was read that the picture was warped to, 0 where it was not.
        """
        desk, late_ns = self.desk, 0
        if self._warps() and drawn is not None and drawn.iz is not None and not desk.paused:
            late_ns = time.monotonic_ns()
            begun = time.perf_counter()
            camera = self._late_camera(late_ns)
            self.renderer.warp(np.asarray(answer.pixels), drawn.iz, drawn.camera, camera, self._warped)
            self.times.add("warp", (time.perf_counter() - begun) * 1e3)
            self.screen.blit(as_surface(self._warped), (0, 0))
        else:
            self.screen.blit(as_surface(answer.pixels), (0, 0))
        if desk.wipe and self._source is not None:
            width, height = self.screen.get_size()
            edge = int(width * (0.5 + 0.42 * math.sin(self.tally.frames * 0.025)))
            self.screen.blit(as_surface(self._source), (0, 0), (0, 0, edge, height))
            pygame.draw.line(self.screen, GOLD, (edge, 0), (edge, height), 2)
        if self.options.hud:
            self._draw_hud(self.screen, answer)
        return late_ns

    def _warps(self) -> bool:
        return self.desk.late_warp and self.renderer.compiled

    def _fresh_depth(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Let the renderer write its depth where no frame that may still be warped has its own."""
        if len(self._depths) <= WARPED_FRAMES:
            self._depths.append(np.empty_like(self.renderer.iz))
        else:
            self._depths.rotate(-1)
            self._drawn = deque(
                (replace(d, iz=None) if d.iz is self._depths[-1] else d for d in self._drawn), DRAWN_FRAMES
            )
        self.renderer.iz = self._depths[-1]
        return self.renderer.iz

    def _late_camera(self, now_ns: int) -> Camera:
        """Where the player looks by now: on from the last step, with the input as it is."""
        # A frame that took long is no reason to run ahead of the rules.
        steps = min((now_ns - self._stepped_ns) / 1e9 / STEP_S, 2.0)
        if self.desk.autopilot:
            turn, look = self._controls.turn * steps, self._controls.look_up * steps
        elif self.options.headless:
            turn = look = 0.0
        else:
            turn, look = read_late(self.desk, steps)
        return self.game.camera_ahead(steps, turn, look)

    def _draw_hud(self, surface: pygame.Surface, answer: mirage_bridge.Answer) -> None:
        desk, session = self.desk, self.session
        line = f"{desk.style} {desk.strength:.0%}" if answer.answered else answer.reason
        if session.style_refusal:
            line = session.style_refusal
        elif session.refusal:
            line = session.refusal
        elif time.monotonic() < desk.note_until_s:
            line = desk.note
        self.hud.draw(surface, self.game, line[:90])
        if desk.paused:
            middle = (surface.get_width() // 2, surface.get_height() // 2)
            self.hud.words(surface, "Paused", middle, big=True, middle=True)
        if desk.overlay:
            stats = session.stats()
            info = session.host_info
            notes = [
                f"{answer.kind}, {answer.edit_age_frames} old  service {answer.service_ns / 1e6:.2f} ms",
                f"motion to photon {self.times.recent('motion_to_photon', 50):.1f} ms   late {stats.late}",
                f"{session.state} {info.get('tier', '')} {info.get('device', '')}   {self.delivery}"
                + ("  late warp" if desk.late_warp else ""),
            ]
            self.hud.overlay(surface, self.times, notes)

    def _measure(self, answer: mirage_bridge.Answer, clock: list[float], input_ns: int, late_ns: int) -> None:
        times, shown_ns = self.times, time.monotonic_ns()
        for stage, start, end in zip(STAGES, clock[:-1], clock[1:], strict=True):
            times.add(stage, (end - start) * 1e3)
        times.add("frame", (clock[-1] - clock[0]) * 1e3)
        times.add("game", (clock[2] - clock[0]) * 1e3)
        if answer.answered and answer.service_ns:
            times.add("service", answer.service_ns / 1e6)
        if input_ns:
            times.add("motion_to_photon", (shown_ns - input_ns) / 1e6)
            if answer.answered and answer.kind == "styled":
                times.add("styled_motion_to_photon", (shown_ns - input_ns) / 1e6)
        if late_ns:
            times.add("warped_motion_to_photon", (shown_ns - late_ns) / 1e6)

    def _keep(self, answer: mirage_bridge.Answer, dumping: bool) -> None:
        """Write what is to be written of this frame, off the frame's clock."""
        desk = self.desk
        started = time.monotonic()
        if desk.toggle_record:
            desk.toggle_record = False
            if self.recorder:
                self.recorder.close()
                desk.say(f"Recorded {self.recorder.frames} frames: {self.recorder.where}")
                self.recorder = None
            else:
                self._record(Path("out/record") / time.strftime("arena_%H%M%S.mp4"))
        if self.recorder:
            self.recorder.add(self.screen)
        if dumping and self.dump and self._source is not None:
            source = as_surface(self._source).copy()
            if self.options.hud:
                self._draw_hud(source, answer)
            self.dump.add(self.tally.frames, desk.style, answer.kind, answer.reason, source, self.screen)
        self._aside_s = time.monotonic() - started
        if not self.options.fps:
            self.tally.aside_s += self._aside_s

    def _record(self, path: Path) -> None:
        self.recorder, words = open_recorder(path, self.options.size, round(self.options.fps) or 60)
        self.desk.say(words)

    def _pace(self, due: float) -> float:
        """Sleep until the next frame is due; a frame that came late starts a new count."""
        left_s = due - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)
            return due
        # What filming took of a frame's pause cost nothing.
        self.tally.aside_s += min(self._aside_s, -left_s)
        return time.monotonic()

    def _report(self, elapsed_s: float) -> dict[str, Any]:
        tally, times, stats = self.tally, self.times, self.session.stats()
        return {
            "frames": tally.frames,
            "answered": {"styled": tally.styled, "reprojected": tally.reprojected, "source": tally.source},
            "unanswered": tally.unanswered,
            "why_unanswered": tally.why_unanswered,
            "fps": round(tally.frames / elapsed_s, 2),
            "size": list(self.options.size),
            "style": self.desk.style,
            "delivery": self.delivery,
            "late_warp": self._warps(),
            "budget_ms": self.options.budget_ms,
            "host": dict(self.session.host_info),
            "game_ms": times.summary("game"),
            "wait_ms": times.summary("wait"),
            "frame_ms": times.summary("frame"),
            "service_ms": times.summary("service"),
            "motion_to_photon_ms": times.summary("motion_to_photon"),
            "styled_motion_to_photon_ms": times.summary("styled_motion_to_photon"),
            "warped_motion_to_photon_ms": times.summary("warped_motion_to_photon"),
            "warp_ms": times.summary("warp"),
            "late": stats.late,
            "dropped": stats.dropped,
            "reconnects": stats.reconnects,
            "crystals": self.game.found,
            "level": self.game.level,
        }


def _plain(plane: Any) -> np.ndarray[Any, Any] | None:
    return None if plane is None else np.asarray(plane)


def motion_to_photon(reports: dict[str, dict[str, Any]]) -> str:
    """Milliseconds from the input to the picture that shows it, a line for each delivery mode."""
    lines = [f"{'input to picture, ms':24}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}"]
    for delivery, report in reports.items():
        for name, key in (("", ""), (", styled", "styled_"), (", late warp", "warped_")):
            row = report[f"{key}motion_to_photon_ms"]
            if row["max"]:
                figures = "".join(f"{row[column]:9.2f}" for column in ("p50", "p95", "p99", "max"))
                lines.append(f"{delivery + name:24}{figures}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Play, as the command line says; 130 where Ctrl-C ended it before it was played."""
    try:
        return _main(parse(arguments))
    except KeyboardInterrupt:
        return 130


def _main(options: Options) -> int:
    reports: dict[str, dict[str, Any]] = {}
    for delivery in options.deliveries:
        try:
            play = Play(options, delivery)
        except (ValueError, mirage_bridge.BridgeError) as error:
            print(f"game: {error}", file=sys.stderr)
            return 2
        except pygame.error as error:
            print(f"game: no window can be opened ({error}); try --headless", file=sys.stderr)
            return 2
        if options.late_warp and not play.renderer.compiled:
            print("game: no late warp without a C compiler (apt install gcc); playing without", file=sys.stderr)
        report = reports[delivery] = play.run()
        if options.headless:
            answered = report["answered"]
            print(
                f"{report['frames']} frames at {report['fps']} fps: {answered['styled']} styled, "
                f"{answered['reprojected']} reprojected, {answered['source']} source, "
                f"{report['unanswered']} unanswered; "
                f"game {report['game_ms']['p50']} ms, wait {report['wait_ms']['p50']} ms (p50)"
            )
    print(motion_to_photon(reports))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        whole = reports[options.deliveries[0]] | {"deliveries": reports}
        options.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
