"""Memory Transformer-XL as the recurrent core of an agent; needs torch and mogrifier only.

`transformer` has the model, made of `parts`, `acting` its steps one after the other, `state` what
it carries, `sight` which keys a step sees, `writes` what is remembered after a segment, `checks`
what is refused, `pretrained` a core's files.
Nothing here imports another folder of the project; all others may import this.
"""

from mtxl_rl.core.acting import Acting
from mtxl_rl.core.state import MemoryState
from mtxl_rl.core.transformer import MemoryTransformerXL

__all__ = ["Acting", "MemoryState", "MemoryTransformerXL"]
