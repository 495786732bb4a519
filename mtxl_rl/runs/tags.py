"""Every curve that a run writes for TensorBoard, and what it is."""

from __future__ import annotations

from typing import get_args

from mtxl_rl.config import Memory
from mtxl_rl.runs.metrics import (
    RETURN_TAG,
    RETURN_WINDOW_TAG,
    SPEED_TAG,
    SUCCESS_TAG,
    WINDOW,
    WINDOW_TAG,
)

_OF_ENDED = "of the episodes that ended in an update."
_OF_EVALUATED = "of the evaluation at the end."

TAGS = {
    SUCCESS_TAG: f"Share of successes {_OF_ENDED}",
    WINDOW_TAG: f"Share of successes of the last {WINDOW:,} episodes, once there are as many: what "
    "--stop-at-success looks at.",
    RETURN_TAG: f"Mean return, in the environment's own units, {_OF_ENDED}",
    RETURN_WINDOW_TAG: f"Mean return of the last {WINDOW:,} episodes, once there are as many: what "
    "--stop-at-return looks at.",
    "charts/episodic_length": f"Mean steps {_OF_ENDED}",
    SPEED_TAG: "Frames a second since this session began, acting and learning together.",
    "charts/learning_rate": "Adam's step size.",
    "charts/ent_coef": "Weight of the entropy in the loss.",
    "cue/seen_rate": f"Share with the cue in view at some step, {_OF_ENDED} Low: it does not "
    "explore.",
    "cue/success_rate_if_seen": "Share of successes of the episodes that saw the cue. Low where "
    "seen_rate is high: it does not remember.",
    "cue/steps_since_seen": "Mean steps from the last sight of the cue to the end, of the episodes "
    "that saw it.",
    "losses/policy_loss": "PPO's clipped surrogate loss.",
    "losses/value_loss": "Squared error of the values, in units of the returns' running scale.",
    "losses/entropy": "Entropy of the policy in nats; at 0 it no longer explores.",
    "losses/loss": "Sum of policy loss, value loss and entropy, by their weights.",
    "losses/old_approx_kl": "Mean of -log(ratio): a noisy estimate of the divergence from the "
    "policy that acted.",
    "losses/approx_kl": "Mean of ratio - 1 - log(ratio): the divergence from the policy that "
    "acted. Steadily above .05: the steps are too large.",
    "losses/clipfrac": "Share of steps whose ratio was clipped.",
    "losses/explained_variance": "1 - Var(return - value) / Var(return): 1 is a perfect critic, 0 "
    "no better than a constant.",
    "losses/grad_norm": "Norm of the gradient before it is clipped to --ppo.max-grad-norm.",
    "losses/skipped": "Share of minibatches that were skipped because something was not finite.",
    "losses/first_ratio_error": "Largest |ratio - 1| in the first minibatch, where acting and "
    "training must agree; the run stops where it is too large in float32.",
    "losses/first_mean_ratio_error": "Mean |ratio - 1| in the first minibatch; the run stops where "
    "it is too large in bfloat16.",
    "memory/write_size": "Mean |new - old| / |old| of the long memory's slots over writes.",
    "memory/gate_openness": "Mean opening of the gates of the write: 0 keeps the slots, 1 replaces "
    "them.",
    "eval/success_rate": f"Share of successes {_OF_EVALUATED}",
    "eval/mean_return": f"Mean return {_OF_EVALUATED}",
    "eval/mean_length": f"Mean steps of the episodes {_OF_EVALUATED}",
    "eval/cue_seen_rate": f"Share of episodes with the cue in view {_OF_EVALUATED}",
    "eval/success_rate_cue_seen": f"Share of successes, where the cue was seen, {_OF_EVALUATED}",
    "eval/mean_cue_age": f"Mean steps since the cue was seen {_OF_EVALUATED}",
}
for _memory in get_args(Memory)[1:]:
    TAGS[f"eval_intervened/success_rate_{_memory}"] = (
        f"Share of successes with the memory {_memory}: what it is good for."
    )
    TAGS[f"eval_intervened/mean_return_{_memory}"] = f"Mean return with the memory {_memory}."

COMPARED = (WINDOW_TAG, RETURN_WINDOW_TAG, *(tag for tag in TAGS if tag.startswith("eval")))
"""What TensorBoard's HPARAMS has a column for: the same of every run, so that they compare."""
