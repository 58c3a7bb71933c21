# SPDX-License-Identifier: GPL-2.0-only
"""Start: a process that makes a VM whose guest leaves with its first instructions, from exec to exit."""
import os

from measure import Spec, Timed, hako_base, metrics, present, qemu_base, rotated

SLOW = 2000  # ms
STATUS = 1  # isa-debug-exit: (0 << 1) | 1
METRICS = (
    Spec('start.wall', 'start, wall clock of the whole process', 'ms', limit='bare ioctls',
         promises=(('bare ioctls', '<=', 0.75), ('QEMU microvm', '<=', 0.15))),
    Spec('start.cpu', 'start, CPU time', 'ms', limit='bare ioctls'),
)


def commands(a):
    """Whom to compare."""
    kernel = os.path.join(a.build, 'guest', 'exit.elf')
    hako = ['--net', 'none', '--console', 'none', '--kernel', kernel]
    qemu = ['-kernel', kernel]
    return {
        'bare ioctls': [os.path.join(a.build, 'bench', 'bare')],
        'bare, split': [os.path.join(a.build, 'bench', 'bare'), 'split'],
        'hako': hako_base(a.hako, 'micro') + hako,
        'hako q35': hako_base(a.hako, 'q35') + hako,
        'QEMU microvm': qemu_base('microvm') + qemu,
        'QEMU q35': qemu_base('q35') + qemu,
    }


def cpu_before(a, who):
    """Seconds of CPU time before the guest does anything, by column; what says a format instead of a board is on the fastest."""
    known = commands(a)
    boards = {'hako': 'hako', 'hako q35': 'hako q35', 'QEMU q35': 'QEMU q35'}
    return {name: Timed(known[boards.get(name, name.split()[0] if name.startswith('hako') else 'QEMU microvm')], STATUS).cpu / 1e3
            for name in who}


def run(a, progress):
    """The metrics."""
    found = metrics(METRICS)
    who = present(commands(a))
    rounds = 5 if a.quick else 21
    # The first one brings the files into the page cache.
    slow = {name: Timed(command, STATUS).wall > SLOW for name, command in who.items()}
    for i in range(rounds):
        progress.say(f'start: round {i + 1} of {rounds}')
        for name in rotated(who, i):
            # Where KVM has to emulate what firmware does, QEMU's q35 takes seconds.
            if slow[name] and i % 5:
                continue
            # QEMU takes so long that the others have more rounds in the same time.
            for _ in range(1 if name.startswith('QEMU') else 3):
                t = Timed(who[name], STATUS)
                found['start.wall'].add(name, t.wall)
                found['start.cpu'].add(name, t.cpu)
    return found
