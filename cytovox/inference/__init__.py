"""Dense prediction over volumes of any size: windows, batches, ensembles, and sums of overlapping windows."""
