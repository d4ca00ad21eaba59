"""The ``nases`` command, one file per subcommand."""
