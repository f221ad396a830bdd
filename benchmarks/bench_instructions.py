"""Instructions of the tile functions for each hot path, which no noise touches."""

import math
import shutil

from . import _suite, instructions

_PATHS = tuple(instructions.HOT_PATHS)


class TileFunctions:
    param_names = ("hot_path",)
    params = (_suite.sizes(_PATHS, _PATHS[:2]),)
    timeout = 600
    unit = "instructions"

    def setup_cache(self):
        """Count all in one process, of which the start takes the longest."""
        return instructions.count(*self.params) if shutil.which("valgrind") else {}

    def track_instructions_of_tiles(self, counts, hot_path):
        found = counts.get(hot_path)
        return math.nan if found is None else found
