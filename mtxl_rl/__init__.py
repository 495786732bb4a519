"""Memory Transformer-XL as the recurrent core of an agent; needs torch and mogrifier only."""

from mtxl_rl.memory import MemoryState
from mtxl_rl.transformer import MemoryTransformerXL

__all__ = ["MemoryState", "MemoryTransformerXL"]
