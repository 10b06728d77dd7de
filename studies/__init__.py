"""Studies for a machine with a GPU: each trains for given minutes, continues when it is started again, and compares.

`python -m studies.NAME --help` lists the options of one. Data folders are arguments, nothing is downloaded, and every
study can be tried on a CPU with a few steps.
"""
