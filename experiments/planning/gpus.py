"""Graphics cards by name, so that a run can be planned for one that is not there."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from cytovox.errors import InputError


@dataclass(frozen=True)
class Card:
    """Figures of a data sheet; rates are dense, in 1e12 operations a second."""

    name: str
    memory_gib: int
    """Its nominal memory; torch reports 1 to 3 % less."""
    short_tflops: float
    """Matrix units with 16-bit operands and float32 sums."""
    float32_tflops: float
    """float32, without TF32."""
    bandwidth_gb_s: float
    """Of its memory, 1e9 bytes a second."""
    bf16: bool
    """Whether it computes bfloat16 in hardware (compute capability 8.0 and up)."""
    source: str
    """The data sheet."""

    @property
    def memory_bytes(self) -> int:
        """Its memory in bytes."""
        return self.memory_gib * 2**30

    def precision(self, wanted: str) -> str:
        """Return what `trainer.precision` is on this card.

        Raises
        ------
        InputError
            bfloat16 on a card that has none.
        """
        if wanted == "auto":
            return "bf16-mixed" if self.bf16 else "16-mixed"
        if wanted == "bf16-mixed" and not self.bf16:
            raise InputError(f"trainer.precision: {self.name} does not compute bfloat16; set it to 16-mixed or auto")
        return "32-true" if wanted == "32" else wanted

    def peak_tflops(self, precision: str) -> float:
        """The highest rate in a precision."""
        return self.float32_tflops if precision == "32-true" else self.short_tflops


_V100 = "NVIDIA V100 datasheet (Jan 2020), SXM2"
_A100 = "NVIDIA A100 datasheet (Jun 2021), SXM"

#: By the name that `plan.device` takes.
CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        Card("V100-16GB", 16, 125.0, 15.7, 900, False, _V100),
        Card("V100-32GB", 32, 125.0, 15.7, 900, False, _V100),
        Card("T4-16GB", 16, 65.0, 8.1, 320, False, "NVIDIA T4 datasheet (2018)"),
        Card("A100-40GB", 40, 312.0, 19.5, 1555, True, _A100),
        Card("A100-80GB", 80, 312.0, 19.5, 2039, True, _A100),
        Card("H100-80GB", 80, 989.0, 67.0, 3350, True, "NVIDIA H100 datasheet (2023), SXM, without sparsity"),
        Card("H200-141GB", 141, 989.0, 67.0, 4800, True, "NVIDIA H200 datasheet (2024), SXM, without sparsity"),
        Card("L40S-48GB", 48, 362.0, 91.6, 864, True, "NVIDIA L40S datasheet (2023), without sparsity"),
        Card("RTX3090-24GB", 24, 71.0, 35.6, 936, True, "NVIDIA GA102 architecture whitepaper (2020), table 9"),
        Card("RTX4090-24GB", 24, 165.2, 82.6, 1008, True, "NVIDIA Ada architecture whitepaper (2022), appendix A"),
    )
}


def find_card(name: str) -> Card:
    """Return the card of this name.

    Raises
    ------
    InputError
        Unknown; the nearest name and all others are listed.
    """
    for known, card in CARDS.items():
        if known.lower() == name.lower():
            return card
    near = difflib.get_close_matches(name.upper(), CARDS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"plan.device: unknown card {name!r}{hint} (known: {', '.join(CARDS)})")
