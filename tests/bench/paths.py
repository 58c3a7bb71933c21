# SPDX-License-Identifier: GPL-2.0-only
"""
The paths that every request takes in the program itself, without the kernel's part: instructions, which callgrind counts, and memory
that is allocated (tests/bench/paths.c). They are the same in every run of one build.
"""
import os
import re
import shutil
import subprocess
import tempfile

from measure import Failure, Spec, metrics

COUNT = 3200  # and twice that: what only the first requests take is no part of the difference
WHAT = {  # by quantity: the title, what is promised, and paths.c's arguments
    'queue.split': ('a chain of 3 from a split ring and back', 380, ('queue',)),
    'queue.packed': ('a chain of 3 from a packed ring and back', 450, ('packed',)),
    'read.raw': ('a read of 4 KiB through raw', 90, ('raw', 'read', 'image.raw')),
    'read.qcow2': ('a read of 4 KiB through qcow2, mapped', 265, ('qcow2', 'read', 'image.qcow2')),
    'write.qcow2': ('a write of 4 KiB through qcow2, mapped', 340, ('qcow2', 'write', 'image.qcow2')),
}
METRICS = (
    *(Spec(f'paths.{name}', f'instructions of the program for {title}', 'instructions', digits=0, steady=True, promises=((None, '<=', bound),))
      for name, (title, bound, _) in WHAT.items()),
    Spec('paths.allocations', f'memory allocations in {COUNT} of each', 'of them', digits=0, steady=True, promises=((None, '<=', 0),)),
)


def counts(program, arguments, count):
    """Instructions in the functions called measured_..., and allocations."""
    p = subprocess.run(['valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null', '--toggle-collect=measured_*', program, *arguments,
                        str(count)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
                       check=False)
    instructions, allocations = re.search(r'Collected : (\d+)', p.stdout), re.search(r'^allocations (\d+)', p.stdout, re.M)
    if p.returncode or not instructions or not allocations:
        raise Failure(f'{program} {" ".join(arguments)}: {p.stdout[-400:].strip()}')
    return int(instructions[1]), int(allocations[1])


def run(a, progress):
    """The metrics."""
    program = os.path.join(a.build, 'bench', 'paths')
    if not os.path.exists(program):
        raise Failure(f'{program} is not there ("make {program}" in a source tree builds it)')
    if not shutil.which('valgrind'):
        raise Failure('there is no valgrind')
    found = metrics(METRICS)
    allocations = 0
    with tempfile.TemporaryDirectory(prefix='paths-', dir=os.path.dirname(a.disk)) as scratch:
        for form, options in ('raw', []), ('qcow2', ['-o', 'preallocation=metadata']):
            subprocess.run([a.hako, 'img', 'create', '-q', '-f', form, *options, os.path.join(scratch, 'image.' + form), '1G'], check=True)
        for name, (_, _, arguments) in WHAT.items():
            progress.say(f'paths: {name}')
            arguments = [os.path.join(scratch, x) if x.startswith('image.') else x for x in arguments]
            (once, made), (twice, _) = (counts(program, arguments, n) for n in (COUNT, 2 * COUNT))
            found[f'paths.{name}'].add('hako', (twice - once) / COUNT)
            allocations += made
    found['paths.allocations'].add('hako', allocations)
    return found
