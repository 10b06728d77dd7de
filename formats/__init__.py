"""Reading and writing of volumes."""
