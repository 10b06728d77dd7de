"""Quality control of every cell in every frame, and lineages of cells that divide."""
