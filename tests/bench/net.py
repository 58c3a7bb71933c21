# SPDX-License-Identifier: GPL-2.0-only
"""
Networks over tap. Frames of 64 bytes (60 and the checksum that no tap has) that the bare-metal guest's driver sends
(tests/guest/t_net.c, polling), in a network namespace of their own, to a socket that nobody reads; and to a port that
nobody listens on, where most of the time goes into the host's answers. And iperf3 with a stock guest, by the kernel's
vhost-net and by the program, in the lab where no stock kernel can run here: both VMMs in turn in one lab machine.
"""
import json
import os
import subprocess
import sys
import tempfile
import types

from disk import counted, guest_result
from measure import HERE, TOP, Failure, Metric, hako_base, qemu_base, rotated

LAB = os.path.join(TOP, 'tests', 'lab')
sys.path.insert(0, LAB)
import guest  # pylint: disable=wrong-import-position

MARK = '# bench '
FRAME = 60
# The other end of the tap is 192.0.2.1 (RFC 5737).
IN_NETWORK = ['unshare', '-Urn', 'sh', '-c', 'ip tuntap add tap0 mode tap && ip addr add 192.0.2.1/24 dev tap0 && '
              'ip link set tap0 up && exec "$@"', '--']
# A socket of the port that the guest sends to. It stays open in what is run then.
LISTENING = [sys.executable, '-c', 'import os, socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); '
             's.bind(("192.0.2.1", 9)); s.set_inheritable(True); os.execvp(sys.argv[1], sys.argv[1:])']
APPEND = 'test=netbench secs={} bs={} ip=192.0.2.2 gw=192.0.2.1 transport={}'
SECONDS = 3


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


def frames(a, progress):
    """The bare-metal guest's metrics."""
    seconds, rounds = (1, 2) if a.quick else (2, 5)
    micro = Metric('64-byte frames sent to a tap, micro', 'thousand/s', promises=[('QEMU microvm', '>=', 1.5)])
    closed = Metric('the same, to a port that nobody listens on', 'thousand/s')
    q35 = Metric('64-byte frames sent to a tap, q35', 'thousand/s')
    calls = Metric('system calls per frame but KVM_RUN', 'calls', digits=3, promises=[(None, '<=', 0.3)])
    with tempfile.TemporaryDirectory(prefix='hako-bench-') as scratch:
        text = os.path.join(scratch, 'text')
        guests = {
            'hako': (micro, hako(a, 'micro', seconds, text), 'hako'),
            'QEMU microvm': (micro, qemu(a, 'microvm', seconds, text), 'QEMU microvm'),
            'hako, closed': (closed, hako(a, 'micro', seconds, text, listening=False), 'hako'),
            'QEMU, closed': (closed, qemu(a, 'microvm', seconds, text, listening=False), 'QEMU microvm'),
            'hako q35': (q35, hako(a, 'q35', seconds, text), 'hako'),
            'QEMU q35': (q35, qemu(a, 'q35', seconds, text), 'QEMU q35'),
        }
        for i in range(rounds):
            for name in rotated(guests, i):
                progress.say(f'frames: round {i + 1} of {rounds}, {name}')
                metric, command, column = guests[name]
                metric.add(column, int(guest_result(command, text)['pps']) / 1e3)
        for name in ('hako', 'QEMU microvm', 'hako q35', 'QEMU q35'):
            progress.say(f'frames: system calls of {name}')
            made, result = counted(guests[name][1], text)
            if made is not None:
                calls.add(name, made / int(result['frames']))
    return [micro, closed, q35] + ([calls] if calls.samples else [])


# --- stock guests ------------------------------------------------------------------------------------


def rates(test_net, net, g):
    """What iperf3 finds to and from a guest that boots."""
    test_net.ready(net, g)
    g.run('tool iperf3 -s -D')
    for direction, options in (('to', []), ('from', ['-R'])):
        said = net.run('iperf3', '-J', '-c', net.net4 + '2', '-t', str(SECONDS), '-O', '1', '--connect-timeout', '20000',
                       *options)
        yield direction, json.loads(said)['end']['sum_received']['bits_per_second'] / 1e6


def inside(paths, rounds):
    """In the lab: each result is a line of JSON."""
    import test_net  # pylint: disable=import-outside-toplevel
    with open(paths, encoding='utf-8') as f:
        paths = json.load(f)
    with tempfile.TemporaryDirectory(prefix='hako-bench-', dir='/dev/shm') as scratch:
        lab = types.SimpleNamespace(pieces=guest.Pieces(paths, scratch))
        lab.pieces.tools()
        for i in range(int(rounds)):
            for vhost, vmm in rotated([(v, w) for v in ('on', 'off') for w in ('hako', 'qemu')], i):
                with test_net.Network(i) as net:
                    nets = [guest.Net('tap', test_net.MAC % 0x56, tap=net.taps[0], vhost=vhost)]
                    with guest.Guest(test_net.spec(lab, 'q35', nets), vmm) as g:
                        for direction, rate in rates(test_net, net, g):
                            print(MARK + json.dumps({'who': vmm, 'vhost': vhost, 'direction': direction, 'rate': rate}), flush=True)


def stock(a, progress):
    """The stock guest's metrics."""
    metrics = {(vhost, direction): Metric(f'iperf3 {direction} a stock guest, ' + ('vhost-net' if vhost == 'on' else 'by the program'),
                                          'Mbit/s', promises=[('QEMU', '>=', 1 if vhost == 'on' else 1.2)])
               for vhost in ('on', 'off') for direction in ('to', 'from')}
    rounds, done = 1 if a.quick else 3, 0
    progress.say('stock guests: the lab starts')
    with tempfile.NamedTemporaryFile('w', prefix='hako-bench-', encoding='utf-8') as f:
        json.dump(guest.pieces(('cloud',)), f)
        f.flush()
        command = [os.path.join(LAB, 'run'), '--timeout', '1800', '--', sys.executable, os.path.join(HERE, 'run'),
                   '--inside', 'net', f.name, str(rounds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                              env=dict(os.environ, HAKO=os.path.abspath(a.hako))) as p:
            for line in p.stdout:
                if line.startswith(MARK):
                    r = json.loads(line[len(MARK):])
                    metrics[r['vhost'], r['direction']].add('hako' if r['who'] == 'hako' else 'QEMU', r['rate'])
                    done += 1
                    progress.say(f'stock guests: {done} of {8 * rounds} runs of iperf3')
    if p.returncode:
        raise Failure(f'in the lab: exit status {p.returncode}')
    return list(metrics.values())


def run(a, progress):
    """The metrics."""
    return frames(a, progress) + (stock(a, progress) if a.lab else [])
