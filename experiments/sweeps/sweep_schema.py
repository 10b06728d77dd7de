"""What W&B's own schema of a sweep file does not take, each error with its place."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping
from typing import Any

#: What a sweep may say beside the keys of W&B's schema, which leaves it to W&B's server.
RUN_CAP = "run_cap"
#: What is expected where the schema only says that none of its many forms fits.
_EXPECTED = {
    "parameters": "values: [...], value:, or a distribution with its min and max",
    "early_terminate": "one such as {type: hyperband, min_iter: 5, eta: 3}",
    "metric": "one such as {name: val/dice_mean, goal: maximize}",
}


def sweep_errors(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Errors of a sweep file, as pairs of the key and what is wrong with it.

    W&B's engine reads what it does not understand as if it were not there: `goal: max` would minimise.

    Parameters
    ----------
    values : mapping
        The file's tree. Keys that are null are left out.
    """
    given = {key: value for key, value in values.items() if value is not None}
    cap = given.pop(RUN_CAP, 1)
    errors = []
    if isinstance(cap, bool) or not isinstance(cap, int) or cap < 1:
        errors.append((RUN_CAP, f"expected a whole number, 1 or more, got {_short(cap)}"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sweeps.config.cfg import schema_violations_from_proposed_config
        from sweeps.config.schema import validator

        known = [*validator.schema["properties"], RUN_CAP]
        errors += [(key, _unknown(key, known)) for key in given if key not in known]
        tree = {key: value for key, value in given.items() if key in known}
        found = [(".".join(map(str, error.absolute_path)), _line(error)) for error in validator.iter_errors(tree)]
        if not found:  # what compares one value with another takes for granted that each is of its type
            found = [("parameters", line) for line in dict.fromkeys(schema_violations_from_proposed_config(tree))]
    return errors + found


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return "no such key of a sweep" + (f"; did you mean {near[0]}?" if near else f"; expected {', '.join(known)}")


def _line(error: Any) -> str:
    """One error in our words, where W&B's schema has none that help."""
    top = error.absolute_path[0] if error.absolute_path else ""
    if error.validator in ("anyOf", "oneOf", "type") and top in _EXPECTED and len(error.absolute_path) <= 2:
        return f"expected {_EXPECTED[top]}, got {_short(error.instance)}"
    if error.validator == "enum":
        return f"expected one of {', '.join(error.validator_value)}, got {_short(error.instance)}"
    return " ".join(str(error.message).split())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
