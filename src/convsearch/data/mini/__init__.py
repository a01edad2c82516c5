"""`data/mini`: the embedded data set, a fictional encyclopaedia and talks about it.

Everything is our own text, made by seeded choices, so the same seed gives the same bytes.
"""

from convsearch.data.mini.generate import DEFAULT_SEED, MiniData, generate_mini, write_mini

__all__ = ["DEFAULT_SEED", "MiniData", "generate_mini", "write_mini"]
