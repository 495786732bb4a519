"""Memory Transformer-XL as the recurrent core of an agent; needs torch and mogrifier only."""

from mtxl_rl.core import Acting, MemoryState, MemoryTransformerXL

__all__ = ["Acting", "MemoryState", "MemoryTransformerXL"]
