# SPDX-License-Identifier: GPL-2.0-only
"""
A stock kernel in the hands of the real GDB: at its first instruction, and when it has booted.

No breakpoints: the processor that QEMU emulates does not arm debug registers at VMRUN, and does not intercept int3, so that guests in the lab meet
none under QEMU either. tests/guest has them.
"""
import os
import re
import shutil
import subprocess
import time

import guest

SYMBOLS = ('linux_banner', 'panic_timeout')
KERNEL_MAP = 0xffffffff80000000
# GDB's commands, and what it has to say to each; {NAME} is a symbol's address.
AT_THE_START = [
    ('p $rip == 0x1000000', r'= 1\b'),
    ('p/x $efer & 0x500', r'= 0x500\b'),
    ('info threads', r'\* 1 +Thread 1 \(vCPU 0, running\)'),
    ('info threads', r'  2 +Thread 2 \(vCPU 1, waits to be started\)'),
    ('stepi', r''),
    ('p $rip > 0x1000000 && $rip < 0x1000010', r'= 1\b'),
    ('stepi 20', r''),
    ('p $rip > 0x1000010', r'= 1\b'),
    ('detach', r'detached'),
]
IN_USER_SPACE = [
    ('info threads', r'\* 1 +Thread 1 \(vCPU 0, (halted|running)\)'),
    ('info threads', r'  2 +Thread 2 \(vCPU 1, (halted|running)\)'),
    ('x/s {linux_banner}', r'"Linux version \d.*Debian'),
    ('thread 2', r'Switching to thread 2'),
    ('x/s {linux_banner}', r'"Linux version \d.*Debian'),
    ('x/s 0', r'Cannot access memory at address 0x0'),
    ('monitor physical on', r'physical now'),
    ('x/s {linux_banner} - {KERNEL_MAP}', r'"Linux version \d.*Debian'),
    ('monitor physical off', r'linear now'),
    ('p/x $cr0 & 0x80000001', r'= 0x80000001\b'),
    ('p *(int *){panic_timeout}', r'= -1\b'),
    ('set *(int *){panic_timeout} = 4711', r''),
    ('stepi 20', r''),
    ('detach', r'detached'),
]


def _talk(lab, path, what, session, symbols):
    """One connection, of GDB's batch mode."""
    command = ['gdb', '-nx', '-batch', '-ex', 'set confirm off', '-ex', 'set pagination off', '-ex', 'set architecture i386:x86-64',
               '-ex', 'set tcp connect-timeout 60', '-ex', 'set remotetimeout 60', '-ex', f'target remote {path}']
    for i, (text, _) in enumerate(session):
        command += ['-ex', f'echo @{i}\\n', '-ex', text.format(**symbols)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                          text=True, timeout=200)
    said = dict(re.findall(r'^@(\d+)\n(.*?)(?=^@\d+\n|\Z)', done.stdout, re.M | re.S))
    bad = [(text.format(**symbols), said.get(str(i), done.stdout)) for i, (text, pattern) in enumerate(session)
           if not re.search(pattern, said.get(str(i), '') if pattern else '')]
    lab.ok(what, not bad, f'{bad[:1]}')


def start(board, lab):
    """Held at its start, looked at and stepped; it boots; looked at again, changed, stepped; it goes on."""
    if lab.vmm != 'hako':
        raise guest.Skip('hako has a server of its own')
    if not shutil.which('gdb'):
        raise guest.Skip('there is no gdb (tools/setup installs it)')
    p, path = lab.pieces, os.path.join(lab.pieces.scratch, f'{lab.name}.gdb')
    spec = guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], board, 2, append='nokaslr', steps=['shell'],
                      options=['--gdb', f'unix:{path},stop=on'])
    with lab.start(spec) as g:
        while not os.path.exists(path) and g.process.poll() is None:
            time.sleep(0.1)
        _talk(lab, path, 'start', AT_THE_START, {})
        g.expect('@@ shell')
        text = g.run(f'grep -wE "{"|".join(SYMBOLS)}" /proc/kallsyms')[1]
        symbols = {name: int(address, 16) for address, name in re.findall(r'^([0-9a-f]{16}) \w (\w+)\s*$', text, re.M)}
        lab.ok('symbols', len(symbols) == len(SYMBOLS), text)
        _talk(lab, path, 'user-space', IN_USER_SPACE, {'KERNEL_MAP': KERNEL_MAP, **symbols})
        said = g.run('cat /proc/sys/kernel/panic')[1]
        lab.ok('changed', said == '4711', said)
        os.write(g.keys, b'exit\n')
        status = g.finish()
        lab.ok('poweroff', status == 0, f'exit status {status}; {g.tail()}')


TESTS = [('gdb.q35', lambda lab: start('q35', lab)), ('gdb.micro', lambda lab: start('micro', lab))]
