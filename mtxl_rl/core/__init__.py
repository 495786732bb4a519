"""Memory Transformer-XL as the recurrent core of an agent; needs torch and mogrifier only.

`transformer` has the model, `acting` its steps one after the other, `state` what it carries;
`attention`, `gating` and `feed_forward` are parts of a layer, `long_memory` and `memory_network`
the writes, `initialization` the weights at the start. Nothing here imports another folder of the
project; all others may import this.
"""

from mtxl_rl.core.acting import Acting
from mtxl_rl.core.state import MemoryState
from mtxl_rl.core.transformer import MemoryTransformerXL

__all__ = ["Acting", "MemoryState", "MemoryTransformerXL"]
