"""SLURM jobs from a config: their scripts, and what they need in the run folder."""
