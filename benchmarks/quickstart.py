"""Trains and measures the quickstart with several seeds, and writes a record of what came out.

    python benchmarks/quickstart.py                      # seeds 0 to 4, one after another
    python benchmarks/quickstart.py --jobs 2             # two at a time, one thread each
    python benchmarks/quickstart.py --seeds 7 --out /tmp/seven.json
    python benchmarks/quickstart.py --seeds 0 --out benchmarks/records/quickstart-alone.json   # on quiet cores

Each seed is what `chiasm quickstart` does, with a cache of its own, so that nothing is left from another run. One
that was stopped goes on where it was; one that is done is not trained again. What the README shows is written
anew from the two records that lie in the repository: the scores of five seeds, on whatever machine was at hand,
and the time that one takes by the clock where nothing else runs. `benchmarks/README.md` says how to read them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- the record begins -->\n", "<!-- the record ends -->\n"  # round the tables in the README
RECORD = ROOT / "benchmarks" / "records" / "quickstart.json"
ALONE = RECORD.with_name("quickstart-alone.json")  # one seed with all cores for itself
WEAKEST = "name of the weakest type"


def main() -> int:
    options = _options()
    runs = Path(options.runs)
    with ThreadPoolExecutor(options.jobs) as pool:
        codes = list(pool.map(lambda seed: _train(runs, seed, options), options.seeds))
    failed = [seed for seed, code in zip(options.seeds, codes, strict=True) if code]
    if failed:
        print(f"seeds {failed} failed; see output.log in their folders under {runs}")
        return 1
    record = summary([_measured(runs / str(seed), seed) for seed in options.seeds])
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if out.resolve() in (RECORD, ALONE):
        text = with_tables(README.read_text(encoding="utf-8"), read(RECORD), read(ALONE))
        README.write_text(text, encoding="utf-8")
    print(tables(record))
    print(f"\nrecord: {out}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument(
        "--threads", type=int, default=0, help="threads of each; default: the cores, shared out"
    )
    parser.add_argument("--runs", default=str(ROOT / "runs" / "quickstart-seeds"), help="folder of the runs")
    parser.add_argument("--out", default=str(RECORD), help="the record")
    parser.add_argument("overrides", nargs="*", help="dotted.key=value of the recipe")
    options = parser.parse_args()
    options.threads = options.threads or max(1, (os.cpu_count() or 1) // options.jobs)
    return options


def _train(runs: Path, seed: int, options: argparse.Namespace) -> int:
    """Run `chiasm quickstart` once more, unless it is done, and add up its seconds; the exit status."""
    folder = runs / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    if _is_done(folder):
        return 0
    threads = {name: str(options.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    command = [sys.executable, "-m", "chiasm.cli", "quickstart", "--out", str(folder / "run")]
    began = time.perf_counter()
    with (folder / "output.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, f"seed={seed}", *options.overrides],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **threads, "CHIASM_CACHE": str(folder / "cache")},
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    sessions = _sessions(folder)
    # The processor seconds of the process and of all that it waited for.
    sessions.append(
        {
            "wall": round(time.perf_counter() - began, 1),
            "processor": round(used.ru_utime + used.ru_stime, 1),
            "threads": options.threads,
            "jobs": options.jobs,
            "load": round(os.getloadavg()[1], 1),
        }
    )
    (folder / "sessions.json").write_text(json.dumps(sessions), encoding="utf-8")
    if _is_done(folder):
        shutil.rmtree(folder / "cache", ignore_errors=True)
        print(
            f"seed {seed}: done in {sum(s['processor'] for s in sessions):.0f} processor seconds", flush=True
        )
    return process.returncode


def _is_done(folder: Path) -> bool:
    return (folder / "run" / "report.html").is_file() and bool(_sessions(folder))


def _sessions(folder: Path) -> list[dict[str, Any]]:
    path = folder / "sessions.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _measured(folder: Path, seed: int) -> dict[str, Any]:
    """What one seed came to."""
    run = json.loads((folder / "run" / "run.json").read_text(encoding="utf-8"))
    tasks = json.loads((folder / "run" / "eval.json").read_text(encoding="utf-8"))["tasks"]
    sessions = _sessions(folder)
    questions, drawn = tasks["questions"], tasks["generation"]
    return {
        "seed": seed,
        "commit": run["git"],
        "finished": run["finished"],
        "machine": run["machine"],
        "versions": run["versions"],
        "seconds": {kind: round(sum(s[kind] for s in sessions), 1) for kind in ("wall", "processor")},
        "sessions": sessions,
        "scores": {
            "questions": questions["score"],
            **{f"questions: {name}": row["score"] for name, row in questions["by_type"].items()},
            "blind": questions["blind"],
            "shuffled": questions["shuffled"],
            "commonest": questions["commonest"],
            "phrasings": tasks["phrasings"]["score"],
            "place": drawn["place"],
            "all": drawn["all"],
            "words": tasks["text"]["score"],
            "words commonest": tasks["text"]["commonest"],
        },
        "intervals": {
            "questions": questions["ci"],
            "phrasings": tasks["phrasings"]["ci"],
            "place": drawn["intervals"]["place"],
            "all": drawn["intervals"]["all"],
            "words": tasks["text"]["ci"],
        },
        "n": {
            "questions": questions["n"],
            "phrasings": tasks["phrasings"]["n"],
            "pictures": drawn["n"],
            "words": tasks["text"]["n"],
        },
    }


def summary(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The record: every seed, and of every score the median and the worst seed's."""
    names = list(seeds[0]["scores"])
    controls = ("blind", "shuffled", "commonest", "words commonest")
    scores = {name: [each["scores"][name] for each in seeds] for name in names}
    weakest = [_weakest(each["scores"]) for each in seeds]
    low = min(weakest, key=lambda pair: pair[1])
    return {
        "command": "python benchmarks/quickstart.py",
        "commit": sorted({each["commit"] for each in seeds}),
        "median": {name: median(values) for name, values in scores.items()}
        | {"weakest type": median(score for _, score in weakest)},
        # Of a control the highest is the worst.
        "worst": {name: (max if name in controls else min)(values) for name, values in scores.items()}
        | {"weakest type": low[1], WEAKEST: low[0]},
        "seconds": {
            kind: {"median": median(times), "worst": max(times)}
            for kind in ("wall", "processor")
            for times in [[each["seconds"][kind] for each in seeds]]
        },
        "seeds": list(seeds),
    }


def _weakest(scores: dict[str, float]) -> tuple[str, float]:
    """The type of question with the lowest score, and that score."""
    types = {
        name.removeprefix("questions: "): v for name, v in scores.items() if name.startswith("questions: ")
    }
    return min(types.items(), key=lambda pair: pair[1])


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def tables(record: dict[str, Any]) -> str:
    """How a record was measured, the scores, and the types of questions."""
    return "\n\n".join((measured(record), headline(record), by_type(record)))


def shown(record: dict[str, Any], alone: dict[str, Any]) -> str:
    """What the README shows of the two records."""
    return f"{clock(alone)}\n\n{tables(record)}"


def with_tables(readme: str, record: dict[str, Any], alone: dict[str, Any]) -> str:
    """The README with the tables of these records in place of those of others."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + shown(record, alone) + "\n" + END + rest.split(END)[1]


def clock(record: dict[str, Any]) -> str:
    """How long a seed took by the clock, and on what."""
    seed, times = record["seeds"][0], record["seconds"]
    machine, session = seed["machine"], seed["sessions"][0]
    return (
        f"`chiasm quickstart` takes {_minutes(times['wall']['median'])} minutes by the clock on {machine['cores']} "
        f"cores ({machine['cpu']}) where nothing else runs ({session['threads']} threads, "
        f"{_minutes(times['processor']['median'])} processor minutes, load average {session['load']:.1f}, commit "
        f"{record['commit'][0][:7]}), evaluation and report included."
    )


def measured(record: dict[str, Any]) -> str:
    """How the record came about, the strain on the machine included: it makes each step take longer."""
    seeds, times, wall = record["seeds"], record["seconds"]["processor"], record["seconds"]["wall"]
    machine, n, threads = seeds[0]["machine"], seeds[0]["n"], seeds[0]["sessions"][0]["threads"]
    count = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    commits = ", ".join(commit[:7] for commit in record["commit"])
    load = max(session["load"] for each in seeds for session in each["sessions"])
    shared = f", shared with other work (load average {load:.0f})" if load > machine["cores"] + 1 else ""
    return (
        f"Measured with {count} on {machine['cores']} cores ({machine['cpu']}){shared}, no GPU, commit "
        f"{commits}: {_minutes(times['median'])} processor minutes a seed (at most {_minutes(times['worst'])}), "
        f"evaluation and report included, or {_minutes(wall['median'])} minutes by the clock with "
        f"{'one thread' if threads == 1 else f'{threads} threads'}; "
        f"{n['questions']:,} questions and {n['pictures']} drawings a seed."
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def headline(record: dict[str, Any]) -> str:
    middle, worst = record["median"], record["worst"]
    rows = {
        "questions about pictures": "questions",
        f"their weakest type (in the worst seed `{worst[WEAKEST]}`)": "weakest type",
        "such questions in words that training never used": "phrasings",
        "things drawn where they were asked for": "place",
        "drawings right in every cell": "all",
        "questions about scenes told in words only": "words",
        "control: questions about pictures, without the picture": "blind",
    }
    lines = ["| score | median seed | worst seed |", "| --- | --- | --- |"]
    lines += [f"| {name} | {percent(middle[key])} | {percent(worst[key])} |" for name, key in rows.items()]
    return "\n".join(lines)


def by_type(record: dict[str, Any]) -> str:
    middle, worst = record["median"], record["worst"]
    types = [name for name in middle if name.startswith("questions: ")]
    lines = ["| type of question | median seed | worst seed |", "| --- | --- | --- |"]
    lines += [
        f"| `{name.removeprefix('questions: ')}` | {percent(middle[name])} | {percent(worst[name])} |"
        for name in types
    ]
    return "\n".join(lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    sys.exit(main())
