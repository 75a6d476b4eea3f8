"""How long each rule of views takes to cut a size: microseconds, over 10,000 sizes from 1 x 1 to 20,000 x 20.

python benchmarks/views.py
python benchmarks/views.py --sizes 1000 --json
"""

from __future__ import annotations

import argparse
import json
import random
import time
from math import exp, log

from chiasm import parts
from chiasm.views import Size


def sizes(count: int) -> list[Size]:
    dice = random.Random(0)
    drawn = (Size(*(round(exp(dice.uniform(0, log(20000)))) for _ in range(2))) for _ in range(count))
    return [Size(1, 1), Size(20, 20000), Size(20000, 20), *drawn]


def microseconds(name: str, some: list[Size]) -> dict[str, float]:
    """Of one size, in processor time, and how many views it gives on average."""
    width = [8] if parts.lookup("views", name).marked else []  # type: ignore[attr-defined]
    views = parts.build("views", {"type": name}, *width)
    began = time.process_time()
    count = sum(len(views.split(size)) for size in some)
    return {"microseconds": (time.process_time() - began) / len(some) * 1e6, "views": count / len(some)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, default=10000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    some = sizes(given.sizes)
    result = {name: microseconds(name, some) for name in sorted(parts.names("views"))}
    if given.json:
        print(json.dumps(result))
        return
    for name, each in result.items():
        print(f"{name:>16} {each['microseconds']:8.1f} us a size, {each['views']:5.1f} views")


if __name__ == "__main__":
    main()
