"""Linear mixed model of cells in fields (in dishes), fitted by the package `mixedlm`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cytovox.errors import InputError
from cytovox.statistics.samples import Sample, Unit


@dataclass(frozen=True)
class MixedFit:
    """Effect of a group in a linear mixed model; nan if there is no fit."""

    effect: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    p: float = float("nan")
    failure: str = ""
    """Reason for a missing p value."""


def fit_mixed(samples: Sequence[Sample], unit: Unit) -> MixedFit:
    """Fit value ~ group + (1 | unit) by REML, or value ~ 1 + (1 | unit) to a single sample.

    Parameters
    ----------
    samples : one or two Sample
        The group, and optionally the control. The effect is group minus control, or the mean of the group.
    unit : {"field", "dish"}
        With "dish", fields are a second random effect if a dish has several.

    Raises
    ------
    InputError
        `mixedlm` is not installed.

    References
    ----------
    Satterthwaite 1946, Biometrics Bulletin 2(6), 110; Kuznetsova et al. 2017, J. Stat. Softw. 82(13).
    """
    try:
        import mixedlm
    except ImportError:
        raise InputError(
            "statistics.test: mixed needs the package mixedlm; pip install 'mixedlm>=1.3,<2', or choose another test"
        ) from None
    import pandas as pd

    values = np.concatenate([sample.values for sample in samples])
    centre, scale = float(values.mean()), float(values.std()) or 1.0
    table = pd.DataFrame(
        {
            # scaled, because the tolerances of the optimiser are absolute and RI varies in the third decimal
            "value": (values - (centre if len(samples) == 2 else 0.0)) / scale,
            "group": np.repeat([1.0, 0.0][: len(samples)], [len(sample.values) for sample in samples]),
            "field": [f"{k} {name}" for k, sample in enumerate(samples) for name in sample.fields],
        }
    )
    if unit == "dish":
        table["dish"] = [f"{k} {name}" for k, sample in enumerate(samples) for name in sample.dishes or ()]
    units, fields = table[unit].nunique(), table["field"].nunique()
    if units == len(table):
        return MixedFit(failure=f"one cell in every {unit}: use test=student")
    terms = ["value ~ group" if len(samples) == 2 else "value ~ 1", f"(1 | {unit})"]
    terms += ["(1 | field)"] if units < fields < len(table) else []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance of 0 is not an error
        fitted = mixedlm.lmer(" + ".join(terms), table)
        rows = fitted.tidy(effects="fixed", conf_int=True, conf_level=0.95)
    row = rows[rows["term"] == ("group" if len(samples) == 2 else "(Intercept)")].iloc[0]
    effect, low, high, p, dof = (float(row[name]) for name in ("estimate", "conf.low", "conf.high", "p.value", "df"))
    if not fitted.converged or not np.isfinite([effect, low, high, p, dof]).all():
        return MixedFit(failure="the mixed model did not converge: use test=student")
    return MixedFit(effect * scale, low * scale, high * scale, p)
