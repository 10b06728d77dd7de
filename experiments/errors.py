"""Many errors at once."""

from cytovox.errors import InputError


class ConfigErrors(InputError):
    """All errors of a config, one line per error."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors
