"""The agent: encoder, recurrent core, actor-critic heads, and PPO that trains them."""
