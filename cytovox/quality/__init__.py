"""Quality control of every cell in every frame, and sums over the lineages of dividing cells."""
