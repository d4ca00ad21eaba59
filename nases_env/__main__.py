"""Run the ``nases`` command as ``python -m nases_env``."""

from nases_env.cli.main import main

if __name__ == "__main__":
    main()
