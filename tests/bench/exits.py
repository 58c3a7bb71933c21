# SPDX-License-Identifier: GPL-2.0-only
"""
How long a guest is away for an access: a port and a device's register in memory, which the program answers, and a doorbell, of which KVM makes an
event. The guest (tests/guest/exits.S) counts the TSC's cycles; the limit is a loop of KVM_RUN (tests/bench/bare.c).
"""
import os
import struct
import subprocess
import tempfile

from measure import Failure, Spec, hako_base, metrics, present, qemu_base, rotated

COUNT = 10000  # as in tests/guest/exits.S
STATUS = 1  # isa-debug-exit: (0 << 1) | 1
KINDS = {'port': 'read of a port', 'mmio': 'read of a register in memory', 'doorbell': 'doorbell, an event for the program'}
METRICS = tuple(Spec(f'exits.{kind}', f'a guest\'s {title}', 'us', limit='bare KVM_RUN', digits=2,
                     promises=(('bare KVM_RUN', '<=', 1.1),) if kind != 'doorbell' else ()) for kind, title in KINDS.items())


def commands(a, text):
    """Whom to compare."""
    kernel = os.path.join(a.build, 'guest', 'exits.elf')
    console = f'file,id=text,path={text}', 'isa-debugcon,iobase=0xe9,chardev=text'
    return {
        'bare KVM_RUN': [os.path.join(a.build, 'bench', 'bare'), 'exits', kernel],
        'hako': hako_base(a.hako, 'micro') + ['--net', 'none', '--console', 'none', '--kernel', kernel, '--chardev', console[0],
                                              '--device', console[1], '--device', 'virtio-rng'],
        'QEMU microvm': qemu_base('microvm') + ['-kernel', kernel, '-chardev', console[0], '-device', console[1],
                                                '-device', 'virtio-rng-device'],
    }


def times(command, text):
    """Run a guest: what it and the bare program print."""
    p = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    if p.returncode != STATUS:
        raise Failure(f'exit status {p.returncode}: {" ".join(command)}: {p.stderr.decode().strip()}')
    if 'bare' in os.path.basename(command[0]):
        return [int(x) for x in p.stdout.split()]
    with open(text, 'rb') as f:
        return list(struct.unpack('<3Q', f.read()))


def run(a, progress):
    """The metrics."""
    found = metrics(METRICS)
    with tempfile.TemporaryDirectory(prefix='hako-bench-') as scratch:
        text = os.path.join(scratch, 'text')
        who = present(commands(a, text))
        khz = times(who['bare KVM_RUN'], text)[0]  # the TSC's, in all guests
        rounds = 3 if a.quick else 15
        for i in range(rounds):
            for name in rotated(who, i):
                progress.say(f'exits: round {i + 1} of {rounds}, {name}')
                for kind, cycles in zip(KINDS, times(who[name], text)[-3:]):
                    found[f'exits.{kind}'].add(name, cycles * 1e3 / khz / COUNT)
    return found
