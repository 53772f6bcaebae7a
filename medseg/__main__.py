"""``python -m medseg`` is the command line."""

from medseg.cli import main

main()
