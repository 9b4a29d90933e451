"""`python -m thaw`, and so `torchrun -m thaw`, is the command `thaw`."""

from thaw.cli import command

if __name__ == "__main__":
    command()
