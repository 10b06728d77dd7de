"""One script a claim of speed or memory, each run as ``python benchmarks/NAME.py`` from anywhere.

Python puts a script's own folder first on the path, where ``training.py`` would hide the package `training`. So every
script first puts the folder above in front of it, and imports its helpers as ``benchmarks._common``.
"""
