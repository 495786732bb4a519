"""Environments of others in whole batches: vector environments, and tensors of your own.

`vectorized_env` runs Gymnasium's vector environments and EnvPool's, `own_tensors` what
`envs.register` names; `single_form` shows either as one environment. It may use the ground and
`envs.wrapped`; the registry uses it.
"""
