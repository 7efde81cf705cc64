"""Print the n-th shell command of the README, so that CI runs what readers are told to run.

usage: python scripts/readme_command.py N
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def commands(text: str) -> list[str]:
    """The contents of the README's `sh` blocks, in order."""
    return [block.strip() for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)]


def main() -> None:
    """Print the command that the first argument numbers, from 1."""
    found = commands((Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8"))
    wanted = int(sys.argv[1]) if len(sys.argv) == 2 and sys.argv[1].isdigit() else 0
    if not 1 <= wanted <= len(found):
        sys.exit(f"usage: readme_command.py N, with N from 1 to {len(found)}")
    print(found[wanted - 1])


if __name__ == "__main__":
    main()
