"""Would the tests notice? One small change of the source at a time, and whether a test fails.

    python benchmarks/mutations.py evaluation data/world/checker.py          # all changes of these modules
    python benchmarks/mutations.py heads routing --sample 100 --seed 0        # a hundred of them
    python benchmarks/mutations.py nn/losses.py --tests tests/nn/test_losses.py     # against these tests

Modules are files or folders below src/chiasm; `mutants.py` says what a change is. The tests of a module are the
files of its name (`tests/nn/test_losses.py`) and those of the folder that mirrors its own (`tests/heads/`), without
the slow ones unless `--slow`. They run once unchanged, which shows what functions each of them calls, by itself. A
change is then put to the tests that call the function it is in, or to all of them where it is made on import: the
files of the module's name first, up to the first failure. They run in a forked process that imports a copy of the
package with the one change. A change that takes five times the processor time of its tests, and twenty seconds, or
runs out of memory, counts as noticed: something waits for it that never comes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import importlib
import io
import multiprocessing
import os
import pkgutil
import random
import resource
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mutants import Mutant, Place, mutate, places

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, TESTS = ROOT / "src" / "chiasm", ROOT / "tests"
MEMORY = 6 * 2**30  # bytes of data a run of tests may hold
Function = tuple[str, int]  # file below the package, first line


@dataclass(frozen=True)
class Test:
    """seconds: of processor time. calls: the functions of the package that it calls, by itself."""

    name: str
    seconds: float
    calls: frozenset[Function]

    @property
    def file(self) -> str:
        return self.name.split("::")[0]


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("modules", nargs="+", help="files or folders below src/chiasm")
    arguments.add_argument("--sample", type=int, help="how many changes, drawn by the seed; default: all")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--tests", nargs="+", help="in place of the tests that mirror each module")
    arguments.add_argument("--slow", action="store_true", help="with the tests that are marked slow")
    arguments.add_argument("--jobs", type=int, default=1, help="processes at a time")
    arguments.add_argument("--timeout", type=float, default=900, help="seconds of one change")
    options = arguments.parse_args()
    chosen = [(area, place) for area in options.modules for file in modules(area) for place in places(file)]
    if options.sample is not None:
        chosen = random.Random(options.seed).sample(chosen, min(options.sample, len(chosen)))
    mutants = [mutate(place) for _, place in chosen]  # before anybody edits the source, or adds tests
    files = {place.module: _files(place, options.tests) for _, place in chosen}
    _preload()
    suites = {each: record(each, options.slow) for each in sorted(set(files.values()))}

    def killed(mutant: Mutant) -> bool:
        tests = suites[files[mutant.module]]
        return noticed(mutant, select(mutant.place, tests), options.timeout)

    totals, kills, survivors = Counter[str](), Counter[str](), []
    with ThreadPoolExecutor(options.jobs) as pool:
        for (area, _), mutant, kill in zip(chosen, mutants, pool.map(killed, mutants)):
            totals[area] += 1
            kills[area] += kill
            survivors += [] if kill else [mutant]
            word = "killed  " if kill else "SURVIVED"
            print(f"{totals.total()}/{len(chosen)} {word} {_line(mutant)}", flush=True)
    print("".join(f"survived: {_line(mutant)}\n" for mutant in survivors))
    for area, total in sorted(totals.items()):
        print(f"{area}: {kills[area]} of {total} killed ({kills[area] / total:.1%})")
    used = os.times()
    print(f"{used.user + used.system + used.children_user + used.children_system:.0f} s of processor time")


def modules(name: str) -> list[Path]:
    """The files that an argument stands for."""
    path = PACKAGE / name
    if not path.exists():
        sys.exit(f"there is no {path.relative_to(ROOT)}")
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def mirroring(module: Path) -> tuple[list[str], list[str]]:
    """The test files of a module's name, and the others of the folder that mirrors its own."""
    place = module.relative_to(PACKAGE)
    folder = TESTS / place.parent
    while not folder.is_dir():
        folder = folder.parent
    own = {TESTS / f"test_{place.stem}.py", *folder.glob(f"test_*{place.stem}.py")}
    own = {path for path in own if path.exists()}
    others = set(folder.glob("test_*.py")) - own if folder != TESTS else set()
    return _names(own), _names(others)


def select(place: Place, tests: Sequence[Test]) -> list[Test]:
    """The tests that a change is put to, in order: the module's own first, then the quickest file."""
    function = (str(place.module.relative_to(PACKAGE)), place.function)
    own = mirroring(place.module)[0]
    chosen = [test for test in tests if place.function is None or function in test.calls]
    seconds: dict[str, float] = defaultdict(float)
    for test in chosen:
        seconds[test.file] += test.seconds
    return sorted(
        chosen, key=lambda test: (test.file not in own, seconds[test.file], test.file, test.seconds)
    )


def noticed(mutant: Mutant, tests: Sequence[Test], timeout: float) -> bool:
    """Whether one of the tests fails, or does not end, with the change."""
    if not tests:
        return False
    seconds = 20 + 5 * sum(test.seconds for test in tests)
    files = list(dict.fromkeys(test.file for test in tests))
    with _package(mutant) as source:
        run = (source, files, _Selection([test.name for test in tests]), "", int(seconds))
        process = multiprocessing.get_context("fork").Process(target=_test, args=run)
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            return True
        return process.exitcode != 0


def record(files: tuple[str, ...], slow: bool) -> list[Test]:
    """Every test of these files, run on the package as it is."""
    if not files:
        sys.exit("a module has no tests that mirror it; name some with --tests")
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with _package(None) as source:
        run = (source, list(files), _Recorder(source / "chiasm", sender), "" if slow else "not slow", None)
        process = context.Process(target=_test, args=run)
        process.start()
        sender.close()
        try:
            tests: list[Test] = receiver.recv()
        except EOFError:
            tests = []
        process.join()
    if process.exitcode != 0 or not tests:
        sys.exit(f"the tests fail before anything is changed: {' '.join(files)}")
    print(f"{len(tests)} tests of {files[0]} ..., {sum(test.seconds for test in tests):.0f} s", flush=True)
    return tests


class _Recorder:
    """Times every test and notes what it calls, as if it were the only one: nothing is cached from another."""

    def __init__(self, package: Path, sender: Any):
        self.root, self.sender = f"{package}/", sender
        self.calls: set[tuple[str, int]] = set()
        self.fixtures: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.tests: list[Test] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        _forget()
        self.calls, start = set(), time.process_time()
        sys.settrace(self._trace), threading.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None), threading.settrace(None)  # type: ignore[arg-type]
            calls = self.calls.union(*(self.fixtures[name] for name in item.fixturenames))
            inside = {
                (file.removeprefix(self.root), line) for file, line in calls if file.startswith(self.root)
            }
            self.tests.append(Test(item.nodeid, time.process_time() - start, frozenset(inside)))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        """What a fixture calls that several tests share counts for each of them."""
        before, self.calls = self.calls, set()
        try:
            return (yield)
        finally:
            self.fixtures[fixturedef.argname] |= self.calls
            self.calls |= before

    def pytest_sessionfinish(self) -> None:
        self.sender.send(self.tests)

    def _trace(self, frame: Any, event: str, argument: Any) -> None:
        self.calls.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))


class _Selection:
    """Runs the tests of these names in this order."""

    def __init__(self, names: Sequence[str]):
        self.rank = {name: rank for rank, name in enumerate(names)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        chosen = [item for item in items if item.nodeid in self.rank]
        items[:] = sorted(chosen, key=lambda item: self.rank[item.nodeid])


def _test(source: Path, files: list[str], plugin: object, marked: str, seconds: int | None) -> None:
    os.chdir(ROOT)
    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = str(source)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    if seconds is not None:
        used = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, used + seconds))
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-m", marked]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = pytest.main([*options, *files], plugins=[plugin])
    os._exit(int(code))


@contextlib.contextmanager
def _package(mutant: Mutant | None) -> Iterator[Path]:
    """A folder with the package by links, but for the changed module."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        _mirror(source / "chiasm", mutant)
        (Path(folder) / "recipes").symlink_to(ROOT / "recipes")
        yield source


def _mirror(package: Path, mutant: Mutant | None) -> None:
    changed = mutant.module.relative_to(PACKAGE) if mutant else Path()
    here, there = package, PACKAGE
    for part in (*changed.parts[:-1], None):
        here.mkdir(parents=True)
        for entry in there.iterdir():
            if entry.name not in (part, "__pycache__", changed.parts[-1] if part is None and mutant else ""):
                (here / entry.name).symlink_to(entry)
        if part is not None:
            here, there = here / part, there / part
    if mutant:
        (here / changed.name).write_text(mutant.source, encoding="utf-8")


def _preload() -> None:
    """What the package imports from others and is not changed, once for all forks."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for module in pkgutil.walk_packages([str(PACKAGE)], "chiasm."):
        with contextlib.suppress(ImportError):
            importlib.import_module(module.name)
    for name in [name for name in sys.modules if name.split(".")[0] == "chiasm"]:
        del sys.modules[name]


def _forget() -> None:
    """Empty the caches of the package's functions."""
    cached = type(functools.cache(_forget))
    for thing in gc.get_objects():
        if type(thing) is cached and (thing.__module__ or "").startswith("chiasm"):
            thing.cache_clear()


def _files(place: Place, named: Sequence[str] | None) -> tuple[str, ...]:
    own, others = mirroring(place.module)
    return tuple(named or sorted([*own, *others]))


def _names(files: set[Path]) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in files)


def _line(mutant: Mutant) -> str:
    return str(mutant).removeprefix(f"{ROOT}/")


if __name__ == "__main__":
    main()
