"""What `--plan` prints of the organelle task alone: patches."""

from __future__ import annotations

from rich.table import Table

from experiments.planning.machine import Machine
from experiments.planning.patch_sizes import advice, axis_sizes
from experiments.planning.summary import FitPlan, Plan
from experiments.planning.tables import size


def advise(fit: FitPlan, machine: Machine) -> str:
    """What to set where not even one patch fits."""
    assert fit.network is not None
    return advice(fit.network, fit.patch, 1, machine.memory_bytes)


def patch_table(fit: FitPlan, plan: Plan) -> Table:
    """Legal patches around the config's."""
    assert fit.network is not None
    rules = zip("zyx", fit.patch, fit.network.divisor, fit.network.minimum, strict=True)
    texts = [
        f"{axis}: multiples of {divisor} from {-(-minimum // divisor) * divisor} "
        f"({', '.join(map(str, axis_sizes(length, divisor, minimum)))}, ...)"
        for axis, length, divisor, minimum in rules
    ]
    table = Table(
        "patch", f"GB at batch {fit.batch}", "largest batch", "batch, s", f"of {len(plan.shapes)} volumes large enough",
        title="patches; those not measured are estimated by voxels", caption="\n".join(texts),
    )  # fmt: skip
    for row in fit.patches(plan.machine, plan.shapes):
        own = row.patch == fit.patch
        shown = f"[bold]{size(row.patch)}, measured[/bold]" if own else size(row.patch)
        table.add_row(
            shown, f"{row.bytes / 1e9:.2f}", str(row.largest_batch), f"{row.batch_seconds:.3g}", str(row.volumes)
        )
    return table
