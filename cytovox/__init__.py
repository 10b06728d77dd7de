"""3D microscopy of living cells, turned into measurements: the library, without a training framework."""
