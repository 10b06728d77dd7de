"""Phantoms seen by a full-wave forward model and reconstructed by odtbrain, made in an environment of their own.

``make_environment.sh`` installs that environment, and ``make_phantoms.py`` runs in it. Nothing here imports `cytovox`.
"""
