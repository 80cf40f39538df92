"""The embedded world: a small made-up world whose corpus, instruction rows, noise and benchmarks are generated.

Facts are fixed by ``WORLD_SEED``, to which the shipped base models belong; a data seed draws instruction rows and
their noise. ``facts`` holds the world, ``skills`` what can be asked about it, ``corpus`` what is written about it,
``noise`` what is planted and labelled; ``safety`` plants harm in place of noise and asks what is to be refused;
``generate`` writes the files, ``pretrain`` makes the base models, ``align`` a start model that refuses.
"""

from sstoken.world.facts import WORLD_SEED, World, build_world
from sstoken.world.generate import generate
from sstoken.world.noise import DEFAULT_NOISE

__all__ = ["DEFAULT_NOISE", "WORLD_SEED", "World", "build_world", "generate"]
