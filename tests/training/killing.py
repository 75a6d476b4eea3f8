"""Trains the toy recipe in children that are killed after random delays, until one comes to its end.

Run as `killing.py FOLDER KILLS SEED`; prints how many children were killed. Forking saves the imports.
"""

import os
import random
import signal
import sys
import time

import torch
from toy import toy

from chiasm.training import train

RECIPE = ("stages.codes.steps=120", "stages.learn.steps=150", "checkpoints.every=4")


def child(folder: str) -> int:
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        os.dup2(os.open(f"{folder}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND), 1)
        try:
            train(toy(*RECIPE), folder)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def main(folder: str, kills: int, seed: int) -> None:
    dice, killed = random.Random(seed), 0
    while killed < kills:
        pid = child(folder)
        time.sleep(dice.uniform(0.02, 0.8))
        os.kill(pid, signal.SIGKILL)
        if os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
            killed += 1
        else:
            break
    _, status = os.waitpid(child(folder), 0)
    print(killed)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
