"""Check a sweep file against W&B's own schema."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from experiments.errors import did_you_mean

#: Key that W&B's schema lacks, since W&B's server handles it.
RUN_CAP = "run_cap"
#: Expected values of keys for which the schema only reports that none of its many forms fits.
_EXPECTED = {
    "parameters": "values: [...], value:, or a distribution with its min and max",
    "early_terminate": "one such as {type: hyperband, min_iter: 5, eta: 3}",
    "metric": "one such as {name: val/dice_mean, goal: maximize}",
}


def sweep_errors(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the errors of a sweep file, as pairs of key and error.

    W&B's engine ignores values that it does not know: with `goal: max` it would minimise.

    Parameters
    ----------
    values : mapping
        Content of the file. Keys that are null are ignored.
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
        errors += [
            (key, "no such key of a sweep" + (did_you_mean(key, known) or f"; expected {', '.join(known)}"))
            for key in given
            if key not in known
        ]
        tree = {key: value for key, value in given.items() if key in known}
        found = [(".".join(map(str, error.absolute_path)), _line(error)) for error in validator.iter_errors(tree)]
        if not found:  # comparisons between values presuppose that each has the right type
            found = [("parameters", line) for line in dict.fromkeys(schema_violations_from_proposed_config(tree))]
    return errors + found


def _line(error: Any) -> str:
    """Return an error of the schema as one line, reworded if the schema's message is of little help."""
    top = error.absolute_path[0] if error.absolute_path else ""
    if error.validator in ("anyOf", "oneOf", "type") and top in _EXPECTED and len(error.absolute_path) <= 2:
        return f"expected {_EXPECTED[top]}, got {_short(error.instance)}"
    if error.validator == "enum":
        return f"expected one of {', '.join(error.validator_value)}, got {_short(error.instance)}"
    return " ".join(str(error.message).split())


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
