# SPDX-License-Identifier: GPL-2.0-only
"""
Debian's cloud kernel from the start of the VMM to the first line of its init, and the memory of the VMM when the
guest is up and idle. Where no stock kernel can run it is measured in the lab (tests/lab/README.md): both VMMs in
turn in one lab machine. There only the ratios mean anything.
"""
import json
import os
import subprocess
import sys
import time

import memory
from measure import HERE, TOP, Failure, Spec, metrics, rotated

LAB = os.path.join(TOP, 'tests', 'lab')
sys.path.insert(0, LAB)
import guest  # pylint: disable=wrong-import-position

MARK = '# bench '
WHO = {'hako': ('hako', 'micro'), 'QEMU microvm': ('qemu', 'micro'),
       'hako q35': ('hako', 'q35'), 'QEMU q35': ('qemu', 'q35')}
METRICS = (
    Spec('stock.init.micro', 'stock Debian cloud kernel to init, micro', 's', digits=2, promises=(('QEMU microvm', '<=', 0.75),)),
    Spec('stock.init.q35', 'stock Debian cloud kernel to init, q35', 's', digits=2, promises=(('QEMU q35', '<=', 0.5),)),
    Spec('stock.own', 'of which the guest counts as its own', 's', digits=2),
    Spec('stock.memory', 'memory beyond guest RAM, private, stock guest idle', 'MiB', digits=2, promises=((None, '<=', 4),), steady=True),
)


def tool(*args):
    """The output of one of the lab's programs."""
    p = subprocess.run([os.path.join(LAB, args[0]), *args[1:]], stdout=subprocess.PIPE, text=True,
                       stdin=subprocess.DEVNULL, check=False)
    if p.returncode:
        raise Failure(f'tests/lab/{args[0]} failed')
    return p.stdout.strip()


def qemu_at_its_best(spec):
    """QEMU's command line, with the clock that the kernel seeks for five seconds on a microvm without."""
    return [x.replace('microvm,acpi=on', 'microvm,acpi=on,rtc=on') for x in guest.qemu_command(spec)]


def inside(kernel, initrd, disk, rounds):
    """In the lab: each result is a line of JSON."""
    guest.COMMANDS['qemu'] = qemu_at_its_best
    disks = [guest.Disk(disk, readonly=True)]
    nets = [guest.Net('user', '52:54:00:12:34:56')]

    def spec(board, size, append, **more):
        return guest.Spec(kernel, initrd, board=board, memory=size, root=False, reboot=False, append=append,
                          **more)

    def say(**result):
        print(MARK + json.dumps(result), flush=True)

    for i in range(-1, int(rounds)):  # the first one brings files into the caches
        for name in rotated(WHO, i):
            vmm, board = WHO[name]
            with guest.Guest(spec(board, 256, 'bench=boot'), vmm) as g:
                g.expect('@@ init', timeout=240)
                wall = time.monotonic() - g.started
                own = float(g.expect('@@ uptime', timeout=60).split()[2])
                status = g.finish(120)
            if status:
                raise Failure(f'{name}: exit status {status}')
            if i >= 0:
                say(kind='boot', who=name, wall=wall, own=own)
    for name, (vmm, board) in WHO.items():
        s = spec(board, memory.MEMORY, 'bench=wait', disks=disks, nets=nets)
        if vmm == 'hako':
            s.options += ['--chardev', 'null,id=c', '--device', 'virtio-serial',
                          '--device', 'virtconsole,chardev=c']
        with guest.Guest(s, vmm) as g:
            g.expect('@@ ready', timeout=240)
            value = memory.beyond(g.process.pid, memory.PRIVATE)
        if value is not None:
            say(kind='memory', who=name, private=value / 1024)


def run(a, progress):
    """The metrics."""
    directory = tool('kernels', 'cloud-amd64').split(' ', 1)[1]
    initrd = tool('mkinitramfs', '--kernel', directory, '--init', os.path.join(HERE, 'guest-init'),
                  '--modules', 'virtio_pci virtio_mmio virtio_blk virtio_net virtio_console')
    found = metrics(METRICS)
    rounds = 1 if a.quick else 5
    command = [os.path.join(LAB, 'run'), '--timeout', '1800', '--', sys.executable, os.path.join(HERE, 'run'),
               '--inside', 'stock', os.path.join(directory, 'vmlinuz'), initrd, a.disk, str(rounds)]
    done = 0
    progress.say('stock kernels: the lab starts')
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                          env=dict(os.environ, HAKO=os.path.abspath(a.hako))) as p:
        for line in p.stdout:
            if not line.startswith(MARK):
                continue
            r = json.loads(line[len(MARK):])
            if r['kind'] == 'memory':
                found['stock.memory'].add(r['who'], r['private'])
                continue
            done += 1
            progress.say(f'stock kernels: {done} of {len(WHO) * rounds} boots')
            board = 'q35' if r['who'].endswith('q35') else 'micro'
            found[f'stock.init.{board}'].add('hako' if r['who'].startswith('hako') else r['who'], r['wall'])
            found['stock.own'].add(r['who'], r['own'])
    if p.returncode:
        raise Failure(f'in the lab: exit status {p.returncode}')
    return found
