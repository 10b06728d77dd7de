"""The `--plan` option: time and memory of a run, measured or computed before it starts."""
