"""W&B sweeps without W&B's server, run with W&B's own engine."""
