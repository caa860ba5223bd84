"""`python -m yosinski_jax WORD`: the command `yosinski-jax WORD`, where scripts are not on the path."""

from yosinski_jax.commands import main

if __name__ == "__main__":
    main()
