"""`chiasm verify`: parity cases, with the largest error of every output beside its tolerance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from chiasm.interop import Result, summary, verify


def run(cases: Sequence[Path], *, as_json: bool) -> bool:
    """Replay the cases and print what came out; True when all agree."""
    results = verify(cases, None if as_json else _tell)
    agree = bool(results) and all(result.agrees for result in results)
    if as_json:
        cases_data = [result.as_data() for result in results]
        print(json.dumps({"cases": cases_data, "agree": agree, "summary": summary(results)}, indent=1))
    else:
        print(summary(results))
    return agree


def _tell(result: Result) -> None:
    print(result, flush=True)
