"""``python -m scfusionttt``, where the environment's scripts are not on the path."""

from scfusionttt.cli import main

main()
