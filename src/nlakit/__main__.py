"""`python -m nlakit`: the command line."""

from nlakit.cli.main import main

main()
