"""`python -m pointsman_server.cli` is the same as `pointsman`."""

from pointsman_server.cli.main import main

main()
