"""Many faults at once."""

from cytovox.errors import InputError


class ConfigErrors(InputError):
    """All faults of a config, a line each."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors
