"""Where the project's root lies, and the folder of real data beside it, which need not be there."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
