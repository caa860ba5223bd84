"""Stores a finished sweep as a study, and verifies a study.

python -m experiments.studies store NAME --workdir=DIR
writes the study's folder: README, settings, records, results.csv, effects.csv, figure, page
python -m experiments.studies verify NAME
recomputes its tables from its records
python -m experiments.studies verify NAME --network=random-0/A4B --data_dir=DIR
retrains that network, and the base that it copies, and compares
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from experiments.studies import store, verify
from yosinski_jax.base.errors import UserError


# Not absl: its flags share one namespace, which the sweep that `verify` starts needs for its own.
class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    kind = argparse.RawDescriptionHelpFormatter
    top = _Parser("python -m experiments.studies", description=__doc__, formatter_class=kind)
    verbs = top.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    check = verbs.add_parser("verify", help="recompute the tables, or retrain a network")
    check.add_argument("name", help="name of a study, or its folder")
    check.add_argument("--network", help="id of a network, such as random-0/A4B")
    check.add_argument("--data_dir", help="folder of prepared datasets")
    check.add_argument(
        "--tolerance", type=float, help="allowed difference in points of accuracy; default none on the same versions and devices"
    )  # fmt: skip
    make = verbs.add_parser("store", help="make or update the study of a finished sweep")
    make.add_argument("name", help="name of the study, or its folder")
    make.add_argument("--workdir", help=f"folder of the sweep; not for {store.PUBLISHED}")
    return top


def main(argv: list[str]) -> int:
    """Runs the command; returns the exit code, 1 if a study is not reproduced.

    Raises:
      UserError: of `store` or `verify`.
    """
    args = parser().parse_args(argv)
    if args.verb == "store":
        return _store(args)
    study = store.folder(args.name)
    wrong = verify.tables(study)
    found = f"differ: {', '.join(wrong)}" if wrong else "follow from the records"
    print(f"{study.name}: tables {found}", flush=True)
    if not args.network:
        return int(bool(wrong))
    allowed = None if args.tolerance is None else args.tolerance / 100
    again = verify.network(study, args.network, data_dir=args.data_dir, tolerance=allowed)
    print(again)
    return int(bool(wrong) or not again.holds)


def _store(args: argparse.Namespace) -> int:
    published = Path(args.name).name == store.PUBLISHED
    if published == bool(args.workdir):
        wanted = "leave it out" if published else "give the folder of a finished sweep"
        raise UserError(f"--workdir={args.workdir or ''}: {wanted}")
    with tempfile.TemporaryDirectory() as folder:
        print(f"  {store.store(args.name, Path(args.workdir or folder))}/")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as e:
        print(f"error: {' '.join(str(e).split())}", file=sys.stderr)
        sys.exit(2)
