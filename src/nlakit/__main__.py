"""`python -m nlakit`: the command line."""

from nlakit.cli import main

main()
