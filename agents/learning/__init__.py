"""How an agent learns: rollouts, advantages, PPO, and the forms in which they run fast.

`rollout` acts in a batch of environments, with the counts of `episodes`; `ppo` learns from it, with
`advantages` and the checks of `finite`; `acceleration` compiles and records both. It may use
`agents/*.py`; nothing of the agent uses it.
"""
