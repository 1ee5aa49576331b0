"""Training and evaluation: `worlds` and `pairs` make data, `trainer` trains, `evaluation` and `endurance` judge.

Nothing is imported here: a process that draws clips loads no trainer, and one that judges no worlds it does
not need.
"""

__all__: list[str] = []
