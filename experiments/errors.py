"""Many faults at once."""

from cytovox.errors import InputError


class ConfigFaults(InputError):
    """All faults of a config, a line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults
