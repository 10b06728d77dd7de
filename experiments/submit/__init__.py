"""Jobs of SLURM out of a config: a script that a person can read, and what it needs in the run folder."""
