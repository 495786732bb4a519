"""A trained policy in your own code: `policy` loads one and acts with it, `hub` shares it.

`policy_state` is what it carries, `acting_step` acting as one function of tensors and
`export_notes` what an exported file says of itself. It may use evaluations, runs, agents and envs;
the inspector and the export use it, and `mtxl_rl.load` when it is called.
"""
