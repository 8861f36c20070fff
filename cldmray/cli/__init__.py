"""The command ``cldmray``: Typer commands whose further arguments are Hydra overrides."""


def main() -> None:
    """Run the command ``cldmray``."""
    from cldmray.cli.commands import app

    app()
