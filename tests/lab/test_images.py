# SPDX-License-Identifier: GPL-2.0-only
"""Disk images of a Debian guest: written by one VMM, read by the other."""
import functools
import os
import subprocess

import guest

PACKAGES = 8  # in mkroot


def check(lab, name, path):
    """Both programs find nothing wrong with an image."""
    program = os.environ.get('HAKO') or os.path.join(guest.TOP, 'build', 'hako')
    for who, command in ('qemu', ['qemu-img']), ('hako', [program, 'img']):
        p = subprocess.run([*command, 'check', '-f', 'qcow2', path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           stdin=subprocess.DEVNULL, check=False, text=True)
        lab.ok(f'{name}-{who}', p.returncode == 0, f'exit status {p.returncode}: {p.stdout}')


def packages(first, second, board, lab):
    """The first VMM's guest installs packages onto an overlay; the second's finds them, all files whole."""
    if lab.vmm != 'hako':
        raise guest.Skip('two VMMs are in it anyway')
    p = lab.pieces
    overlay = os.path.join(p.scratch, f'{lab.name}.qcow2')
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', p.paths['debian'], '-F', 'raw', overlay],
                   check=True)
    for vmm, step in (first, 'install:vdb'), (second, f'installed:{PACKAGES}'):
        disks = [guest.Disk(overlay, form='qcow2'), guest.Disk(p.paths['packages'], readonly=True)]
        spec = guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], board, steps=[step], disks=disks)
        with lab.start(spec, vmm) as g:
            g.expect('@@ init')
            status = g.finish()
            lab.steps(g, [step.split(':')[0]])
            lab.ok(f'poweroff-{vmm}', status == 0, f'exit status {status}; {g.tail()}')
        check(lab, f'check-after-{vmm}', overlay)
    os.unlink(overlay)


TESTS = [
    ('images.hako-then-qemu', functools.partial(packages, 'hako', 'qemu', 'q35')),
    ('images.qemu-then-hako', functools.partial(packages, 'qemu', 'hako', 'micro')),
]
