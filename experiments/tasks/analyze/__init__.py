"""The analyze task: tomograms to tables of cells, tracks and groups, with figures and a report."""
