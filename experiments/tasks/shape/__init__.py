"""Shape tasks: 3D shapes of cells from 2D images (DISPR, SHAPR)."""
