"""What the model is made of: modules that know nothing of segments, episodes or states.

`attention`, `feed_forward` and `gating` are parts of a `layer`; `long_memory` and `memory_network`
are the writes, `initialization` the weights at the start. It may use `mtxl_rl.core.shapes`; the
rest of the core uses it.
"""
