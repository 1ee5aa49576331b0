"""What the game draws over the picture once it is there: health, crystals, map, words, and the F1 overlay."""

import math

import numpy as np
import pygame

from arena.bake import FLAT_MIPS
from arena.clock import FrameTimes
from arena.play import FULL_HEALTH, Game

__all__ = ["Hud"]

INK = (18, 20, 26)
PAPER = (240, 236, 224)
GOLD = (240, 196, 92)
RED = (214, 68, 62)
CYAN = (96, 226, 240)
STAGE_COLOURS = (
    (92, 150, 214),
    (120, 196, 160),
    (214, 176, 92),
    (190, 120, 200),
    (220, 110, 96),
    (150, 150, 158),
)
MAP_PIXELS = 76


class Hud:
    """Draws onto a surface of the frame's size; sizes follow its height (1 at 360 rows)."""

    def __init__(self, game: Game, height: int) -> None:
        pygame.font.init()
        self.scale = max(1, round(height / 360))
        self.font = pygame.font.Font(None, 18 * self.scale)
        self.big = pygame.font.Font(None, 30 * self.scale)
        self._words: dict[tuple[str, bool, tuple[int, int, int]], pygame.Surface] = {}
        self._map = self._draw_map(game)

    def draw(self, surface: pygame.Surface, game: Game, line: str) -> None:
        """Health, crystals, the map, the message, and one `line` of status at the bottom."""
        s, (width, height) = self.scale, surface.get_size()
        if game.tick - game.hurt_tick < 24:
            edge = pygame.Surface((width, height), pygame.SRCALPHA)
            edge.fill((190, 20, 20, 70 - 2 * max(0, game.tick - game.hurt_tick)))
            surface.blit(edge, (0, 0))
        bar = pygame.Rect(10 * s, height - 22 * s, 120 * s, 10 * s)
        pygame.draw.rect(surface, INK, bar.inflate(4 * s, 4 * s))
        share = max(0.0, game.health / FULL_HEALTH)
        full = bar.copy()
        full.width = int(bar.width * share)
        pygame.draw.rect(surface, RED if share < 0.35 else (104, 190, 96), full)
        for index in range(game.total):
            x, y = (16 + index * 13) * s, height - 36 * s
            shape = [(x, y - 7 * s), (x + 4 * s, y), (x, y + 5 * s), (x - 4 * s, y)]
            pygame.draw.polygon(surface, INK, [(px, py + s) for px, py in shape])
            pygame.draw.polygon(surface, CYAN if index < game.found else (70, 82, 92), shape)
        self._minimap(surface, game)
        self.words(surface, line, (140 * s, height - 24 * s))
        if game.tick < game.message_until:
            self.words(surface, game.message, (width // 2, 26 * s), big=True, middle=True)

    def words(
        self,
        surface: pygame.Surface,
        text: str,
        at: tuple[int, int],
        *,
        big: bool = False,
        middle: bool = False,
        colour: tuple[int, int, int] = PAPER,
    ) -> None:
        """A line of words with a dark edge; drawn once and kept."""
        key = (text, big, colour)
        if key not in self._words:
            if len(self._words) > 200:
                self._words.clear()
            font = self.big if big else self.font
            front, back = font.render(text, True, colour), font.render(text, True, INK)
            made = pygame.Surface((front.get_width() + 2, front.get_height() + 2), pygame.SRCALPHA)
            for dx, dy in ((0, 1), (2, 1), (1, 0), (1, 2), (2, 2)):
                made.blit(back, (dx, dy))
            made.blit(front, (1, 1))
            self._words[key] = made
        made = self._words[key]
        surface.blit(made, (at[0] - (made.get_width() // 2 if middle else 0), at[1]))

    def _draw_map(self, game: Game) -> pygame.Surface:
        """The ground as seen from above, from its smallest mip, north up."""
        atlas, world = game.baked.atlas, game.world
        level = FLAT_MIPS - 1
        pitch = int(atlas.flat_pitch[level])
        first = int(atlas.flat_base[0, level])
        rows = world.depth * pitch // world.width
        texels = game.baked.lit[first : first + rows * pitch].reshape(rows, pitch)
        walls = np.repeat(np.repeat((world.low >= 2).reshape(world.depth, world.width), 2, 0), 2, 1)
        shown = np.where(walls, np.uint32(0xFF2A2622), texels)[::-1]
        image = pygame.image.frombuffer(np.ascontiguousarray(shown).tobytes(), (pitch, rows), "RGBX").copy()
        return pygame.transform.scale(image, (pitch * self.scale, rows * self.scale))

    def _minimap(self, surface: pygame.Surface, game: Game) -> None:
        s = self.scale
        size = MAP_PIXELS * s
        per_metre = 2 * s
        px, py = int(game.x * per_metre), int((game.world.depth - game.z) * per_metre)
        corner = (surface.get_width() - size - 10 * s, 10 * s)
        frame = pygame.Rect(*corner, size, size)
        pygame.draw.rect(surface, INK, frame.inflate(4 * s, 4 * s))
        view = pygame.Rect(px - size // 2, py - size // 2, size, size)
        surface.set_clip(frame)
        surface.blit(self._map, (corner[0] - view.x, corner[1] - view.y))

        def place(x: float, z: float) -> tuple[int, int]:
            return (
                corner[0] + int(x * per_metre) - view.x,
                corner[1] + int((game.world.depth - z) * per_metre) - view.y,
            )

        for crystal in game.crystals:
            pygame.draw.circle(surface, CYAN, place(*crystal), 2 * s)
        for guard in game.guards:
            pygame.draw.circle(
                surface, RED if guard.chasing else (190, 120, 60), place(guard.x, guard.z), 2 * s
            )
        pygame.draw.circle(surface, GOLD, place(*game.world.exit), 3 * s, s)
        cx, cy = place(game.x, game.z)
        sin, cos = math.sin(game.yaw), math.cos(game.yaw)
        tip = (cx + int(6 * s * sin), cy - int(6 * s * cos))
        left = (cx - int(s * (3 * cos + 3 * sin)), cy - int(s * (3 * sin - 3 * cos)))
        right = (cx + int(s * (3 * cos - 3 * sin)), cy + int(s * (3 * sin + 3 * cos)))
        pygame.draw.polygon(surface, PAPER, [tip, left, right])
        surface.set_clip(None)

    def overlay(self, surface: pygame.Surface, times: FrameTimes, notes: list[str]) -> None:
        """F1: where the frame's time goes, as a stacked bar against the budget, and in numbers."""
        s = self.scale
        stages = times.stages
        panel = pygame.Surface((238 * s, (62 + 15 * (len(stages) + len(notes))) * s), pygame.SRCALPHA)
        panel.fill((14, 16, 22, 205))
        left, top = 8 * s, 8 * s
        self.words(
            panel,
            f"frame {times.recent('frame', 50):5.2f} ms   budget {times.budget_ms:.2f}",
            (left, top),
            colour=GOLD,
        )
        length = 220 * s
        per_ms = length / (times.budget_ms * 1.25)
        x = float(left)
        bar_top = top + 20 * s
        for index, stage in enumerate(stages):
            wide = times.recent(stage, 50) * per_ms
            wide = min(wide, left + length - x)
            pygame.draw.rect(
                panel, STAGE_COLOURS[index % len(STAGE_COLOURS)], (int(x), bar_top, max(1, int(wide)), 10 * s)
            )
            x += wide
        line = left + int(times.budget_ms * per_ms)
        pygame.draw.line(panel, PAPER, (line, bar_top - 3 * s), (line, bar_top + 13 * s), s)
        y = bar_top + 20 * s
        for index, stage in enumerate(stages):
            pygame.draw.rect(
                panel, STAGE_COLOURS[index % len(STAGE_COLOURS)], (left, y + 3 * s, 8 * s, 8 * s)
            )
            self.words(panel, f"{stage}", (left + 14 * s, y))
            self.words(panel, f"{times.recent(stage, 50):6.2f}", (left + 110 * s, y))
            self.words(panel, f"p99 {times.recent(stage, 99):6.2f}", (left + 156 * s, y))
            y += 15 * s
        for note in notes:
            self.words(panel, note, (left, y), colour=(190, 200, 210))
            y += 15 * s
        surface.blit(panel, (8 * s, 8 * s))
