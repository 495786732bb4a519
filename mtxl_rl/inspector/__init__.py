"""What an agent remembers, as one page to step through: `python -m mtxl_rl.inspect RUN`.

`watching` sees what attention reads and the write writes, `recording` plays episodes, `replay` runs
them again with another memory, `probe` reads the cue from the memory, `thinning` keeps what fits,
`pictures` draws what the agent sees, `page` makes the HTML file of it, from the template page.html.
It may use `mtxl_rl.policies` and what that uses.

Shapes: T steps, L layers, H heads, N persistent slots, S long-memory slots, M short-memory length,
W segment length, J = N + S + M + W keys, E versions of the memory in an episode, R rows of the
memory (slots, or layers of a recurrent core), A numbers of a policy.
"""
