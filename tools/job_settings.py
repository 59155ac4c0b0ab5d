"""What can be chosen about a run of the main job: environment variables, as the Makefile passes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.devnet import OURS


@dataclass(frozen=True, slots=True)
class Settings:
    """The Makefile's comments say what each is."""

    tape: Path | None
    chain: Path | None
    l1: str
    duration_s: float | None
    json: Path | None

    @property
    def can_travel(self) -> bool:
        """Whether L1's time is ours to move: it is on a chain that the job has started itself."""
        return self.l1 in OURS

    @classmethod
    def of(cls, environment: dict[str, str]) -> Settings:
        """Raises ValueError naming the option."""
        duration = environment.get("DURATION", "")
        try:
            duration_s = float(duration) if duration else None
        except ValueError:
            raise ValueError(f"DURATION={duration}: expected a number of seconds") from None
        if duration_s is not None and duration_s <= 0:
            raise ValueError(f"DURATION={duration}: expected more than 0 seconds")
        l1 = environment.get("L1") or "embedded"
        if l1 not in OURS and not l1.startswith(("http://", "https://")):
            raise ValueError(f"L1={l1}: expected embedded, anvil or a URL")
        path = environment.get("JSON")
        return cls(
            _file(environment, "TAPE"),
            _file(environment, "CHAIN"),
            l1,
            duration_s,
            Path(path) if path else None,
        )


def _file(environment: dict[str, str], name: str) -> Path | None:
    value = environment.get(name)
    if value and not Path(value).is_file():
        raise ValueError(f"{name}={value}: there is no such file")
    return Path(value) if value else None
