"""Public test tools: phantoms with known truth, and contract suites that every head inherits, ours and other people's.

Nothing in medseg imports this package.
"""

from contextlib import suppress

# The suites need pytest, the phantoms do not. Rewriting lets a suite's plain asserts show what they compared.
with suppress(ImportError):
    import pytest

    pytest.register_assert_rewrite(
        "medseg.testing.decoding", "medseg.testing.learning", "medseg.testing.damage", "medseg.testing.readers"
    )
