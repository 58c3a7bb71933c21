# SPDX-License-Identifier: GPL-2.0-only
"""Debian's cloud kernel in less usual settings."""
import functools
import os

import guest


def boots(board, steps, options, lab):
    """A guest takes the steps and powers off. Options: of guest.Spec."""
    p = lab.pieces
    options = dict(options)
    disks = []
    if options.pop('disk', False):
        disks = [guest.Disk(p.root(lab.name)), guest.Disk(p.blank(lab.name, 8 << 20), 'scratch')]
    spec = guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], board, steps=steps, disks=disks,
                      **options)
    with lab.start(spec) as g:
        g.expect('@@ init')
        status = g.finish()
        lab.steps(g, [s.split(':')[0] for s in steps])
        lab.ok('poweroff', status == 0, f'exit status {status}; {g.tail()}')
    for d in disks:
        os.unlink(d.path)


def _named(name, board, steps, **options):
    return name, functools.partial(boots, board, steps, options)


TESTS = [
    # RAM on both sides of the hole below 4 GiB.
    _named('memory.q35', 'q35', ['memory:5000000'], memory=5120),
    _named('memory.micro', 'micro', ['memory:5000000'], memory=5120),
    _named('cpus.q35', 'q35', ['cpus:4'], cpus=4),
    _named('cpus.micro', 'micro', ['cpus:4'], cpus=4),
    # The kernel unpacks itself.
    _named('decompress-in-guest', 'micro', ['info'], options=['--kernel-decompress', 'guest']),
    # Without io_uring.
    _named('loop-threads.q35', 'q35', ['mount', 'discard:vdb'], disk=True, options=['--loop', 'threads']),
    _named('loop-threads.micro', 'micro', ['mount', 'discard:vdb'], disk=True,
           options=['--loop', 'threads']),
]
