"""The keys do what the game's docstring says."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import game as arena_game
import numpy as np
import pygame
import pytest


@pytest.fixture
def play(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[arena_game.Play]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    folder = tmp_path_factory.mktemp("keys")
    monkeypatch.chdir(folder)
    options = arena_game.parse(
        ["--size", "160x90", "--fps", "0", "--endpoint", f"ipc://{folder}/nobody", "--styles", "snow,ink,cel"]
    )
    made = arena_game.Play(options)
    made.frame()
    yield made
    made.session.close()
    if made.recorder:
        made.recorder.close()
    pygame.quit()


def press(play: arena_game.Play, key: int, frames: int = 1) -> None:
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))
    pygame.event.post(pygame.event.Event(pygame.KEYUP, key=key))
    for _ in range(frames):
        play.frame()


def test_digits_choose_styles(play: arena_game.Play) -> None:
    epoch = play.session.style_epoch
    press(play, pygame.K_3)
    assert play.desk.style == "cel"
    assert play.session.style_epoch == epoch + 1
    press(play, pygame.K_9)
    assert play.desk.style == "cel"


def test_brackets_change_the_strength_within_its_range(play: arena_game.Play) -> None:
    press(play, pygame.K_LEFTBRACKET)
    assert play.desk.strength == 0.9
    for _ in range(3):
        press(play, pygame.K_RIGHTBRACKET)
    assert play.desk.strength == 1.0


def test_pause_stops_the_world_and_nothing_else(play: arena_game.Play) -> None:
    press(play, pygame.K_p)
    tick = play.game.tick
    shown = play.tally.frames
    play.frame()
    assert play.game.tick == tick
    assert play.tally.frames == shown + 1
    press(play, pygame.K_p)
    assert play.game.tick == tick + 1


def test_tab_and_f1_change_what_is_shown(play: arena_game.Play) -> None:
    press(play, pygame.K_p)
    plain = pygame.surfarray.array3d(play.screen).copy()
    press(play, pygame.K_F1)
    assert (pygame.surfarray.array3d(play.screen) != plain).mean() > 0.05
    press(play, pygame.K_F1)
    press(play, pygame.K_TAB)
    assert (pygame.surfarray.array3d(play.screen) != plain).any()
    press(play, pygame.K_TAB)
    assert (pygame.surfarray.array3d(play.screen) == plain).all()


def test_r_records_until_it_is_pressed_again(play: arena_game.Play) -> None:
    press(play, pygame.K_r, frames=3)
    recorder = play.recorder
    assert recorder is not None
    press(play, pygame.K_r)
    assert play.recorder is None
    assert recorder.frames >= 3
    assert list(Path("out/record").iterdir())


def test_o_hands_over_to_the_autopilot(play: arena_game.Play) -> None:
    place = (play.game.x, play.game.z)
    for _ in range(20):
        play.frame()
    assert (play.game.x, play.game.z) == place
    press(play, pygame.K_o, frames=40)
    assert (play.game.x, play.game.z) != place


def test_the_mouse_looks_around_once_it_is_taken(play: arena_game.Play) -> None:
    yaw = play.game.yaw
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(5, 5)))
    pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, rel=(100, 0), pos=(5, 5), buttons=(0, 0, 0)))
    play.frame()
    assert play.game.yaw == pytest.approx(yaw + 0.32)
    press(play, pygame.K_ESCAPE)
    assert not play.desk.quit
    press(play, pygame.K_ESCAPE)
    assert play.desk.quit


def test_the_late_warp_turns_the_picture_by_what_the_mouse_moved_since(
    play: arena_game.Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the player turns by it once, in the step after."""
    if not play.renderer.compiled:
        pytest.skip("no C compiler here: apt install gcc")
    play.options = replace(play.options, hud=False)
    pygame.event.post(pygame.event.Event(pygame.MOUSEBUTTONDOWN, button=1, pos=(5, 5)))
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_l))
    play.frame()
    yaw, wait = play.game.yaw, play.session.wait_answer

    def moved_while_waiting(frame_id: int) -> object:
        event = pygame.event.Event(pygame.MOUSEMOTION, rel=(20, 0), pos=(5, 5), buttons=(0, 0, 0))
        pygame.event.post(event)
        return wait(frame_id)

    still = pygame.surfarray.array3d(play.screen).astype(int)
    monkeypatch.setattr(play.session, "wait_answer", moved_while_waiting)
    play.frame()
    turned = pygame.surfarray.array3d(play.screen).astype(int)
    assert play.game.yaw == yaw
    # 0.064 radians to the right: what is in the middle goes six or seven pixels to the left.
    pixels = round(play.renderer.focal * 20 * arena_game.MOUSE_TURN)
    middle = slice(50, 110), slice(35, 60)
    ahead = slice(50 + pixels, 110 + pixels), slice(35, 60)
    assert np.abs(turned[middle] - still[ahead]).mean() < 0.5 * np.abs(turned[middle] - still[middle]).mean()
    monkeypatch.undo()
    play.frame()
    assert play.game.yaw == pytest.approx(yaw + 0.064)
    play.frame()
    assert play.game.yaw == pytest.approx(yaw + 0.064)


def test_the_hud_is_drawn_over_the_answer_only(play: arena_game.Play) -> None:
    """What is sent has no HUD in it; what is shown has, and is otherwise the answer."""
    sent = np.empty((90, 160, 4), np.uint8)
    play.renderer.draw(play.game.view(), sent)
    shown = pygame.surfarray.array3d(play.screen).transpose(1, 0, 2)
    same = (shown == sent[..., :3]).all(-1)
    assert not same[10:80, 80:].all(), "the map"
    assert same[62:65, :60].all(), "between the crystals and the bar"
