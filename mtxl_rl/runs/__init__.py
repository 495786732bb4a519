"""What a run keeps: its directory, checkpoints, curves, and the state that goes on with it."""
