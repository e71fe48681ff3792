from scfusionttt.cli import main

main()
