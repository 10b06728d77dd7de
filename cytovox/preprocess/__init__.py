"""What a network reads, as plain functions: index range, resampling, and fields of shapes."""
