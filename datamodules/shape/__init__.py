"""Data of the shape tasks: images, masks and 3D shapes of single cells."""
