# SPDX-License-Identifier: GPL-2.0-only
"""What the disk image tests share: programs, random images, verdicts."""
import os
import random
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HAKO = os.path.abspath(os.environ.get("HAKO", TOP + "/build/hako"))
QEMU_IO, QEMU_IMG = ["qemu-io"], ["qemu-img"]
HAKO_IO, HAKO_IMG = [HAKO, "io"], [HAKO, "img"]
KiB, MiB = 1024, 1024 * 1024


class Failure(Exception):
    pass


def run(cmd, cwd, stdin=None, ok=(0,), timeout=120):
    """Run to the end; any other status than those is a failure. Returns (status, output)."""
    try:
        r = subprocess.run(cmd, cwd=cwd, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout)
    except subprocess.TimeoutExpired as e:
        raise Failure(f"still runs after {timeout} s: {' '.join(cmd)}") from e
    if ok is not None and r.returncode not in ok:
        raise Failure(f"status {r.returncode}: {' '.join(cmd)}\n{r.stdout[-2000:]}")
    return r.returncode, r.stdout


def check_sound(cwd, name, leaks=False):
    """Both programs find nothing wrong with a qcow2 image (but, with leaks, lost space)."""
    ok = (0, 3) if leaks else (0,)
    for tool in (QEMU_IMG, HAKO_IMG):
        run([*tool, "check", "-f", "qcow2", name], cwd, ok=ok)


def random_size(rng, limit=64 * MiB):
    size = rng.choice((rng.randrange(512, 256 * KiB), rng.randrange(64 * KiB, 4 * MiB), rng.randrange(1 * MiB, limit)))
    return size // 512 * 512


def random_options(rng, data_file=None):
    """Options for a qcow2 image: any that fit together."""
    o = {"cluster_size": rng.choice((512, 1024, 4096, 16 * KiB, 64 * KiB, 64 * KiB, 256 * KiB, 2 * MiB))}
    if rng.random() < 0.15:
        o["compat"] = "0.10"
        return o
    o["refcount_bits"] = rng.choice((1, 2, 4, 8, 16, 16, 16, 32, 64))
    if rng.random() < 0.3 and o["cluster_size"] >= 16 * KiB:
        o["extended_l2"] = "on"
    if rng.random() < 0.2:
        o["lazy_refcounts"] = "on"
    if rng.random() < 0.3:
        o["compression_type"] = "zstd"
    if rng.random() < 0.2:
        o["preallocation"] = rng.choice(("metadata", "falloc", "full"))
    if data_file and rng.random() < 0.5:
        o["data_file"] = data_file
        if rng.random() < 0.5:
            o["data_file_raw"] = "on"
    return o


def options_text(options):
    return ",".join(f"{k}={v}" for k, v in options.items())


def main_loop(name, argv, one_run, command=None):
    """NAME [--seed N] [--runs N] [--seconds N] [--ops N]: one_run(rng, directory) returns the number of operations it made."""
    import shutil
    import tempfile
    import time
    args = {"--seed": random.randrange(1 << 32), "--runs": 0, "--seconds": 0, "--ops": 0}
    it = iter(argv)
    for a in it:
        if a not in args:
            sys.exit(f"usage: {name} [--seed N] [--runs N] [--seconds N] [--ops N]")
        args[a] = int(next(it))
    if not args["--runs"] and not args["--ops"] and not args["--seconds"]:
        args["--seconds"] = 30
    start, runs, ops, failed = time.monotonic(), 0, 0, False
    while not failed:
        seed = args["--seed"] + runs
        d = tempfile.mkdtemp(prefix=f"hako-{name}-", dir=os.environ.get("TMPDIR", "/var/tmp"))
        try:
            ops += one_run(random.Random(seed), d)
        except Failure as e:
            print(f"not ok block/{name}: seed {seed} ({command or name} --seed {seed} --runs 1), images in {d}: {e}", flush=True)
            failed = True
        else:
            shutil.rmtree(d)
        runs += 1
        if (args["--runs"] and runs >= args["--runs"]) or (args["--ops"] and ops >= args["--ops"]) or \
           (args["--seconds"] and time.monotonic() - start > args["--seconds"]):
            break
    if not failed:
        print(f"ok block/{name} {runs} runs, {ops} operations, seeds from {args['--seed']}, {time.monotonic() - start:.0f} s")
    return 1 if failed else 0
