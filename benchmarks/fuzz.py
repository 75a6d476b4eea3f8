"""Inputs with something wrong in them: recipes, studies, records, images, checkpoints, runs, command lines, calls.

    python benchmarks/fuzz.py                                  # 10,000 inputs; half an hour of one core
    python benchmarks/fuzz.py --inputs 500 --seed 7
    python benchmarks/fuzz.py --kind picture --only 31         # one of them again; its folder stays

Each is made from its kind, its number and the seed, in a folder of its own, and tried in a forked process that
has imported everything, with standard input closed. It must end in success or in a sentence (ChiasmError; of a
command, an exit status and words without a traceback), within ten processor seconds (or ten asleep) and 2 GiB,
without writing outside its folder, starting a program or asking another machine. Exits with 1 where one does not,
and says how to repeat it. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import pkgutil
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fuzz_worker import OUTCOMES, SENTENCE, SUCCESS, Kind, Limits, Result, tried

LIMITS = Limits()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", help="only this kind of input; may be given again")
    parser.add_argument(
        "--only", type=int, metavar="N", help="only the input of this number, with all it prints"
    )
    parser.add_argument("--folder", type=Path, help="where all of it is written; default: a temporary folder")
    options = parser.parse_args()
    root = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    known = prepared(root.absolute())
    if unknown := set(options.kind or ()) - set(known):
        parser.error(f"there is no kind {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    chosen = {name: kind for name, kind in known.items() if not options.kind or name in options.kind}
    if options.only is None:
        numbers = shared(options.inputs, chosen)
    else:
        numbers = {name: [options.only] for name in chosen}
    results = attempt(root.absolute(), chosen, numbers, options.seed)
    if options.only is not None:
        for name, [result] in results.items():
            print(
                f"\n{name} {result.number}: {result.outcome}, {result.seconds} s, {result.mib} MiB, in {root}"
            )
            print(result.detail)
    else:
        print(table(results))
    failures = failed(results)
    if not options.folder and not failures and options.only is None:
        shutil.rmtree(root)
    elif failures:
        print(f"\n{len(failures)} inputs failed; what they were made of and what they printed: {root}/inputs")
    sys.exit(1 if failures else 0)


def prepared(root: Path) -> dict[str, Kind]:
    """The kinds of input, of what is written into the folder `stock`; everything is imported and was used once."""
    os.environ |= {"OMP_NUM_THREADS": "1", "CHIASM_CACHE": str(root / "cache")}
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    import fuzz_kinds
    import fuzz_stock
    import torch

    import chiasm

    for module in pkgutil.walk_packages(chiasm.__path__, "chiasm."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(module.name)
    torch.set_num_threads(1)
    (root / "canary").mkdir(parents=True, exist_ok=True)
    if not (root / "stock" / "public").is_dir():
        fuzz_stock.make_stock(root / "stock")
    gc.collect()
    gc.freeze()  # what is here is in no process searched for garbage, which would copy it
    return fuzz_kinds.kinds(root)


def shared(inputs: int, kinds: Mapping[str, Kind]) -> dict[str, list[int]]:
    """So many inputs among the kinds, by their shares."""
    shares = sum(kind.share for kind in kinds.values())
    return {name: list(range(max(1, round(inputs * kind.share / shares)))) for name, kind in kinds.items()}


def attempt(
    root: Path,
    kinds: Mapping[str, Kind],
    numbers: Mapping[str, Sequence[int]],
    seed: int,
    limits: Limits = LIMITS,
) -> dict[str, list[Result]]:
    """What became of the inputs of each kind, in folders below `root`."""
    shutil.rmtree(root / "inputs", ignore_errors=True)
    (root / "inputs").mkdir(parents=True)
    results: dict[str, list[Result]] = {}
    for name, kind in kinds.items():
        began = time.monotonic()
        results[name] = []
        for result in tried(name, kind, numbers[name], seed, root, limits):
            results[name].append(result)
            if failed({name: [result]}):
                say(f"{result.outcome}: {last_line(result.detail)}")
                say(f"  python benchmarks/fuzz.py --seed {seed} --kind {name} --only {result.number}")
        say(f"{name}: {len(results[name])} in {time.monotonic() - began:.0f} s")
    return results


def failed(results: Mapping[str, Sequence[Result]]) -> list[tuple[str, Result]]:
    return [
        (name, result)
        for name, several in results.items()
        for result in several
        if result.outcome not in (SUCCESS, SENTENCE)
    ]


def table(results: Mapping[str, Sequence[Result]]) -> str:
    lines = ["| kind | inputs | " + " | ".join(OUTCOMES) + " | longest, s | most, MiB |"]
    lines.append("| --- " * (len(OUTCOMES) + 4) + "|")
    for name, several in [*results.items(), ("all", [each for some in results.values() for each in some])]:
        count = Counter(result.outcome for result in several)
        cells = [f"{len(several):,}", *(f"{count[outcome]:,}" for outcome in OUTCOMES)]
        cells += [f"{max(each.seconds for each in several):.1f}", f"{max(each.mib for each in several):.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:300]


if __name__ == "__main__":
    main()
