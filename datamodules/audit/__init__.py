"""The audit of a data set (`--check`): unreadable files, misplaced masks, leaks between splits."""
