"""3D microscopy of living cells, turned into measurements.

The names of `__init__.pyi` are all that a notebook needs; docs/python.md shows them in use:

>>> import cytovox
>>> volume = cytovox.simulate("HeLa", seed=1, shape=(64, 64, 64)).volume       # or cytovox.read("cell.TCF")
>>> model = cytovox.load_model("organelle", device="cpu")
>>> masks = model.predict(volume)
>>> cells = cytovox.find_cells(masks, method="watershed")
>>> table = cytovox.measure(volume, masks, cells)
>>> {"cell", "compartment", "volume_um3", "flags"} <= set(table.columns)
True

Importing the package loads no other module: each name is imported at its first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
