"""Prepare the input of networks: normalisation, resampling, and fields of shapes."""
