"""The ``nases`` command, one file a subcommand."""
