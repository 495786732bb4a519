"""The agent: encoder, recurrent core, actor-critic heads, and PPO that trains them.

`actor_critic` is the agent, made of a core of `cores` and an encoder of `encoders`, `actions` its
policy; `learning` trains it. `ranks` is of several processes, `running` of statistics, `trees` of
states, `named` of classes of your own, `spaces` of words for Gymnasium's. It may use
`mtxl_rl.core`, and no environment: that is a protocol here.
"""
