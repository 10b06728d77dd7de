"""W&B's sweep files run without its server, through W&B's own engine."""
