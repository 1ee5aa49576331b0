"""The sample game's world, rules and renderer: numpy alone, but for `hud` and `record`, which need pygame.

`Game(seed).frames(n)` plays on autopilot and draws; `arena.gbuffer.gbuffer` gives a frame's geometry and
materials.
"""
