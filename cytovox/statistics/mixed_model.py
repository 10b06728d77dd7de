"""A linear mixed model of cells in fields (in dishes), by the package `mixedlm`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cytovox.errors import InputError
from cytovox.statistics.samples import Sample, Unit


@dataclass(frozen=True)
class MixedFit:
    """Effect of a group in a linear mixed model."""

    effect: float
    low: float
    high: float
    p: float
    dof: float
    """Satterthwaite's degrees of freedom."""
    failure: str = ""
    """Why there is no p."""


def fit_mixed(samples: Sequence[Sample], unit: Unit) -> MixedFit:
    """Fit value ~ group + (1 | unit) by REML; value ~ 1 + (1 | unit) of one sample.

    Parameters
    ----------
    samples : one or two Sample
        The group, and the control if there is one. The effect is group minus control, or the group's mean.
    unit : {"field", "dish"}
        With "dish", fields are a second random effect where a dish has several.

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
            # scaled: the optimiser's tolerances are absolute, and an index varies in the third digit
            "value": (values - (centre if len(samples) == 2 else 0.0)) / scale,
            "group": np.repeat([1.0, 0.0][: len(samples)], [len(sample.values) for sample in samples]),
            "field": [f"{k} {name}" for k, sample in enumerate(samples) for name in sample.fields],
        }
    )
    if unit == "dish":
        table["dish"] = [f"{k} {name}" for k, sample in enumerate(samples) for name in sample.dishes or ()]
    several = unit == "dish" and table["field"].nunique() > table["dish"].nunique()
    nested = table["field"].nunique() < len(table)
    if table[unit].nunique() == len(table):
        return _failed(f"one cell in every {unit}: use test=student")
    terms = [f"(1 | {unit})"] + (["(1 | field)"] if several and nested else [])
    formula = " + ".join(["value ~ group" if len(samples) == 2 else "value ~ 1", *terms])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a vanishing variance is no failure
        fitted = mixedlm.lmer(formula, table)
        rows = fitted.tidy(effects="fixed", conf_int=True, conf_level=0.95)
    row = rows[rows["term"] == ("group" if len(samples) == 2 else "(Intercept)")].iloc[0]
    numbers = [float(row[name]) for name in ("estimate", "conf.low", "conf.high", "p.value", "df")]
    if not fitted.converged or not np.isfinite(numbers).all():
        return _failed("the mixed model did not converge: use test=student")
    effect, low, high = (number * scale for number in numbers[:3])
    return MixedFit(effect, low, high, numbers[3], numbers[4])


def _failed(why: str) -> MixedFit:
    unknown = float("nan")
    return MixedFit(unknown, unknown, unknown, unknown, unknown, why)
