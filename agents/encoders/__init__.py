"""From an observation to the core's input.

`parts` has what reads one part, by its space; `encoder` picks one for each part, or takes those of
a user's own, and adds up what they make. It may use `agents.cores.initialization`, `agents.named`,
`agents.spaces` and `mtxl_rl.core`; the agent (`agents/*.py`) uses it.
"""
