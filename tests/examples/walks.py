"""A short walk through the arena, drawn once for all tests that look at frames."""

from arena.gbuffer import GBuffer, gbuffer
from arena.play import Game
from arena.renderer import Renderer, View

SIZE = (320, 180)


class Walk:
    """Pairs of neighbouring frames of an autopilot run: their views, G-buffers, and the renderer."""

    def __init__(self) -> None:
        game = Game(7, everything=True)
        self.renderer: Renderer = game.renderer(*SIZE)
        self.pairs: list[tuple[View, GBuffer, View, GBuffer]] = []
        old: tuple[View, GBuffer] | None = None
        for tick in range(1, 1502):
            game.step(game.autopilot())
            near = tick % 150
            if near == 149:
                old = game.view(), gbuffer(self.renderer, game.view())
            elif near == 0 and old is not None:
                self.pairs.append((*old, game.view(), gbuffer(self.renderer, game.view())))
