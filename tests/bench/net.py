# SPDX-License-Identifier: GPL-2.0-only
"""
Frames over tap, of 64 bytes (60 and the checksum that no tap has), that the bare-metal guest's driver sends
(tests/guest/t_net.c, polling), in a network namespace of their own, to a socket that nobody reads; and to a port that
nobody listens on, where most of the time goes into the host's answers.
"""
import os
import sys
import tempfile

import start
from disk import counted, guest_result
from measure import Spec, hako_base, metrics, present, qemu_base, rotated

FRAME = 60
# The other end of the tap is 192.0.2.1 (RFC 5737).
IN_NETWORK = ['unshare', '-Urn', 'sh', '-c', 'ip tuntap add tap0 mode tap && ip addr add 192.0.2.1/24 dev tap0 && '
              'ip link set tap0 up && exec "$@"', '--']
# A socket of the port that the guest sends to. It stays open in what is run then.
LISTENING = [sys.executable, '-c', 'import os, socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); '
             's.bind(("192.0.2.1", 9)); s.set_inheritable(True); os.execvp(sys.argv[1], sys.argv[1:])']
APPEND = 'test=netbench secs={} bs={} ip=192.0.2.2 gw=192.0.2.1 transport={}'
METRICS = (
    Spec('net.frames.micro', '64-byte frames sent to a tap, micro', 'thousand/s', better='higher', promises=(('QEMU microvm', '>=', 1.5),)),
    Spec('net.frames.closed', 'the same, to a port that nobody listens on', 'thousand/s', better='higher'),
    Spec('net.frames.q35', '64-byte frames sent to a tap, q35', 'thousand/s', better='higher'),
    Spec('net.frames.cpu', 'CPU time per frame of VMM and guest', 'us', digits=2),
    Spec('net.frames.calls', 'system calls per frame but KVM_RUN', 'calls', digits=3, steady=True, promises=((None, '<=', 0.3),)),
)


def hako(a, board, seconds, text, listening=True):
    """hako's command line."""
    return IN_NETWORK + LISTENING * listening + hako_base(a.hako, board) + [
        '--kernel', os.path.join(a.build, 'guest', 'guest.elf'), '--console', 'none',
        '--append', APPEND.format(seconds, FRAME, 'pci' if board == 'q35' else 'mmio'),
        '--chardev', f'file,id=text,path={text}', '--device', 'isa-debugcon,iobase=0xe9,chardev=text',
        '--net', 'tap,ifname=tap0,vhost=off']


def qemu(a, board, seconds, text, listening=True):
    """QEMU's."""
    bus, transport = ('pci', 'pci') if board == 'q35' else ('device', 'mmio')
    return IN_NETWORK + LISTENING * listening + qemu_base(board) + [
        '-kernel', os.path.join(a.build, 'guest', 'guest.elf'), '-append', APPEND.format(seconds, FRAME, transport),
        '-chardev', f'file,id=text,path={text}', '-device', 'isa-debugcon,iobase=0xe9,chardev=text',
        '-netdev', 'tap,id=n0,ifname=tap0,script=no,downscript=no,vhost=off',
        '-device', f'virtio-net-{bus},netdev=n0' + (',romfile=' if board == 'q35' else '')]


def run(a, progress):
    """The metrics."""
    found = metrics(METRICS)
    seconds, rounds = (1, 2) if a.quick else (2, 5)
    with tempfile.TemporaryDirectory(prefix='hako-bench-') as scratch:
        text = os.path.join(scratch, 'text')
        guests = present({
            'hako': ('micro', hako(a, 'micro', seconds, text), 'hako'),
            'QEMU microvm': ('micro', qemu(a, 'microvm', seconds, text), 'QEMU microvm'),
            'hako closed': ('closed', hako(a, 'micro', seconds, text, listening=False), 'hako'),
            'QEMU closed': ('closed', qemu(a, 'microvm', seconds, text, listening=False), 'QEMU microvm'),
            'hako q35': ('q35', hako(a, 'q35', seconds, text), 'hako'),
            'QEMU q35': ('q35', qemu(a, 'q35', seconds, text), 'QEMU q35'),
        })
        before = start.cpu_before(a, guests)
        for i in range(rounds):
            for name in rotated(guests, i):
                progress.say(f'frames: round {i + 1} of {rounds}, {name}')
                which, command, column = guests[name]
                r = guest_result(command, text)
                found[f'net.frames.{which}'].add(column, int(r['pps']) / 1e3)
                if which != 'closed':
                    found['net.frames.cpu'].add(name, (r['cpu'] - before[name]) * 1e6 / int(r['frames']))
        for name, (which, command, _) in guests.items():
            if which == 'closed':
                continue
            progress.say(f'frames: system calls of {name}')
            made, result = counted(command, text)
            if made is not None:
                found['net.frames.calls'].add(name, made / int(result['frames']))
    return found
