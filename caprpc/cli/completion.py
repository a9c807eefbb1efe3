"""``caprpc completion``: the script that teaches a shell our commands."""

import click
from click.shell_completion import get_completion_class

_EPILOG = """\b
Examples:
  source <(caprpc completion bash)             this bash only
  caprpc completion zsh > ~/.zfunc/_caprpc     zsh, if ~/.zfunc is on its fpath
  caprpc completion fish > ~/.config/fish/completions/caprpc.fish
"""


@click.command(epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL."""
    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"no completion for {shell}")
    program = ctx.find_root().command
    click.echo(completer(program, {}, "caprpc", "_CAPRPC_COMPLETE").source())
