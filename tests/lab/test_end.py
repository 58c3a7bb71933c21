# SPDX-License-Identifier: GPL-2.0-only
"""The ways a guest ends or starts again: the kernel's ways to restart, panic, the power button."""
import functools
import os
import subprocess

import guest

BOARDS = ('q35', 'micro')
# Linux' names, as in /sys/kernel/reboot/type: i8042, triple fault, the FADT's register, port 0xcf9,
# a jump to the firmware's entry in real mode.
WAYS = {'q35': ('kbd', 'triple', 'acpi', 'pci', 'bios'), 'micro': ('kbd', 'triple', 'acpi')}


def _spec(lab, board, steps, **options):
    p = lab.pieces
    return guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], board, steps=steps, **options)


def restarts(board, lab):
    """Restart in the same process by every way that Linux has."""
    disk = lab.pieces.root(lab.name)
    with lab.start(_spec(lab, board, ['restarts:' + '+'.join(WAYS[board])], disks=[guest.Disk(disk)])) as g:
        for count, way in enumerate(WAYS[board], 1):
            g.expect(f'@@ restarting {way}')
            g.expect(f'@@ init {count + 1} ')
            lab.ok(way)
        status = g.finish()
        lab.ok('poweroff', status == 0, f'exit status {status}')
    os.unlink(disk)


def no_reboot(step, says, board, lab):
    """With --no-reboot, a restart is the end."""
    with lab.start(_spec(lab, board, [step], reboot=False)) as g:
        g.expect(says)
        status = g.finish()
        lab.ok('exit', status == 0, f'exit status {status}; {g.tail()}')
        lab.ok('once', g.console.count(b'@@ init') == 1, 'the guest started again')


def button(board, lab):
    """SIGTERM is the power button: the guest gets it and powers off."""
    with lab.start(_spec(lab, board, ['button'])) as g:
        g.expect('@@ waiting')
        g.press_power()
        g.expect('@@ button ok')
        status = g.finish()
        lab.ok('exit', status == 0, f'exit status {status}; {g.tail()}')


def second_term(lab):
    """A second SIGTERM ends hako when the guest does not heed the first."""
    if lab.vmm != 'hako':
        raise guest.Skip(f'{lab.vmm} ends at the first')
    with lab.start(_spec(lab, 'q35', ['idle:60'], append='acpi=off')) as g:
        g.expect('@@ init')
        g.process.terminate()
        try:
            g.process.wait(2)
            lab.ok('first', False, 'one was enough, though the guest had no way to hear it')
        except subprocess.TimeoutExpired:
            lab.ok('first')
        g.process.terminate()
        try:
            g.process.wait(5)
            lab.ok('second')
        except subprocess.TimeoutExpired:
            lab.ok('second', False, 'still there 5 s later')


TESTS = [(f'restart.{board}', functools.partial(restarts, board)) for board in BOARDS]
TESTS += [(f'no-reboot.{board}', functools.partial(no_reboot, 'restarts:kbd', '@@ restarting', board))
          for board in BOARDS]
TESTS += [(f'panic.{board}', functools.partial(no_reboot, 'panic', '@@ panicking', board))
          for board in BOARDS]
TESTS += [(f'button.{board}', functools.partial(button, board)) for board in BOARDS]
TESTS += [('second-term', second_term)]
