"""Stub."""


def write_report(ledger: object) -> None:
    """Stub."""
