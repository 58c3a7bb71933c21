# SPDX-License-Identifier: GPL-2.0-only
"""
Memory of a VMM beyond its guest's: the private pages (clean and dirty) of all mappings in /proc/PID/smaps but
the one of guest RAM, which is the anonymous mapping of exactly the guest's size. The guest has a disk, a network card
and a console, and reads from the disk all the time; the largest of several looks counts.
"""
import contextlib
import os
import re
import subprocess
import time

from measure import Failure, Spec, hako_base, metrics, present, qemu_base, rotated

MEMORY = 128  # MiB
MAPPING = re.compile(r'^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ (\d+) *(.*)$')
SECONDS = 2.0
PRIVATE, SHARED_OUT = 'Private_', 'Pss:'  # of shared pages nothing, or this process' share
METRICS = tuple(Spec(f'memory.{net}', f'memory beyond guest RAM, private, with --net {net}', 'MiB', promises=((None, '<=', 4),), digits=2,
                     steady=True) for net in ('user', 'tap'))


def beyond(pid, field, ram=MEMORY):
    """KiB beyond guest RAM of @ram MiB, by the fields of smaps that begin with @field; None while there is no guest RAM."""
    total, in_ram, seen = 0, False, False
    with open(f'/proc/{pid}/smaps', encoding='utf-8') as f:
        for line in f:
            match = MAPPING.match(line)
            if match:
                size = int(match[2], 16) - int(match[1], 16)
                in_ram = size == ram << 20 and match[3].startswith('rw') and match[4] == '0'
                seen |= in_ram
            elif line.startswith(field) and not in_ram:
                total += int(line.split()[1])
    return total if seen else None


@contextlib.contextmanager
def tap():
    """A tap interface: its name, or None where there can be none."""
    name = f'hkb{os.getpid() % 100000}'
    made = subprocess.run(['ip', 'tuntap', 'add', name, 'mode', 'tap', 'vnet_hdr'], check=False,
                          stderr=subprocess.DEVNULL)
    if made.returncode:
        yield None
        return
    try:
        subprocess.run(['ip', 'link', 'set', name, 'up'], check=True)
        yield name
    finally:
        subprocess.run(['ip', 'link', 'del', name], check=False)


def commands(a, net, ifname, test='blkbench secs=1000 irq=1'):
    """Whom to compare: VMMs with a disk, a network card and a console."""
    kernel = os.path.join(a.build, 'guest', 'guest.elf')
    who = {}
    for name, board, bus in (('hako', 'micro', 'mmio'), ('hako q35', 'q35', 'pci')):
        who[name] = hako_base(a.hako, board, MEMORY) + [
            '--kernel', kernel, '--append', f'test={test} transport={bus}',
            '--disk', a.disk + ',read-only=on', '--net', 'user' if net == 'user' else f'tap,ifname={ifname}',
            '--console', 'null', '--chardev', 'null,id=c', '--device', 'virtio-serial',
            '--device', 'virtconsole,chardev=c']
    for name, board, bus in (('QEMU microvm', 'microvm', 'device'), ('QEMU q35', 'q35', 'pci')):
        host = 'user,id=n' if net == 'user' else f'tap,id=n,ifname={ifname},script=no,downscript=no'
        who[name] = qemu_base(board, MEMORY) + [
            '-kernel', kernel, '-append',
            f'test={test} transport={"mmio" if bus == "device" else bus}',
            '-drive', f'file={a.disk},format=raw,if=none,id=d,read-only=on,aio=io_uring',
            '-device', f'virtio-blk-{bus},drive=d', '-netdev', host,
            '-device', f'virtio-net-{bus},netdev=n', '-serial', 'null', '-chardev', 'null,id=c',
            '-device', f'virtio-serial-{bus}', '-device', 'virtconsole,chardev=c']
    return who


def look(command, seconds):
    """Start the guest, and look at the process for a while: the largest value in MiB."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE) as p:
        try:
            values, end = [], time.monotonic() + seconds
            while time.monotonic() < end:
                time.sleep(0.1)
                if p.poll() is not None:
                    raise Failure(f'{" ".join(command)}: {p.stderr.read().decode().strip()}')
                values.append(beyond(p.pid, PRIVATE))
            if values[-1] is None:
                raise Failure(f'{command[0]}: no mapping of the size of guest RAM')
            return max(v for v in values if v is not None) / 1024
        finally:
            if p.poll() is None:
                p.kill()


def run(a, progress):
    """The metrics."""
    found = metrics(METRICS)
    for net in ('user', 'tap'):
        with tap() if net == 'tap' else contextlib.nullcontext() as ifname:
            if net == 'tap' and not ifname:
                continue
            who = present(commands(a, net, ifname))
            for i in range(1 if a.quick else 3):
                progress.say(f'memory: {net}, round {i + 1}')
                for name in rotated(who, i):
                    found[f'memory.{net}'].add(name, look(who[name], SECONDS))
    return found
