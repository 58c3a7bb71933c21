# SPDX-License-Identifier: GPL-2.0-only
"""Debian's cloud kernel with packed rings on all its devices, and resets of single queues."""
import functools
import os
import re

import guest
import test_net

FIO = ('tool fio --name=verify --filename=/dev/vdb --size=8m --rw=randrw --bsrange=4k-64k --ioengine=libaio '
       '--direct=1 --iodepth=16 --verify=crc32c --do_verify=1 --verify_fatal=1 --randseed=7')


def _command(lab, what, g, command, pattern=''):
    status, said = g.run(command)
    lab.ok(what, status == 0 and re.search(pattern, said), said)


def packed(board, lab):
    """Disk, network, console and random numbers, all with packed rings."""
    if lab.vmm != 'hako':
        raise guest.Skip('options of hako')
    p = lab.pieces
    sent = os.path.join(p.scratch, f'{lab.name}.sent')
    scratch = guest.Disk(p.blank(lab.name, 8 << 20), 'scratch', options=',packed=on')
    with test_net.Network(lab.index, queues=1) as net:
        card = guest.Net('tap', test_net.MAC % 0x56, tap=net.taps[0], vhost='off', options=',packed=on')
        spec = test_net.spec(lab, board, [card], options=[
            '--device', 'virtio-rng,packed=on', '--device', 'virtio-serial,packed=on',
            '--chardev', f'file,id=f,path={sent}', '--device', 'virtserialport,chardev=f,name=lab.port'])
        spec.disks[0].options = ',packed=on'
        spec.disks.append(scratch)
        with lab.start(spec) as g:
            test_net.ready(net, g)
            # Bit 34 of what driver and device have agreed upon.
            _command(lab, 'negotiated', g, 'cut -c 35 /sys/bus/virtio/devices/*/features | uniq', '^1\n?$')
            _command(lab, 'fio', g, FIO, 'err= 0')
            _command(lab, 'rng', g, 'dd if=/dev/hwrng bs=512 count=16 2>/dev/null | wc -c', '^[1-9]')
            _command(lab, 'port', g, 'dd if=/bin/busybox of=$(echo /dev/vport*) bs=64k count=2')
            test_net.pings(lab, 'ping', g, net.net4 + '1', 1400)
            g.run('tool iperf3 -s -D')
            test_net.iperf(lab, 'to-guest', net, net.net4 + '2', '-n', '16M', '-P', '2')
            test_net.iperf(lab, 'from-guest', net, net.net4 + '2', '-n', '16M', '-P', '2', '-R')
            # Linux resets the queues to give them rings of another size.
            for rx, tx in ((128, 64), (64, 128)) if board == 'q35' else ():
                _command(lab, f'resize-{rx}', g, f'tool ethtool -G eth0 rx {rx} tx {tx}')
                _command(lab, f'resized-{rx}', g, 'tool ethtool -g eth0', f'(?s)Current.*RX:\\s*{rx}\\n.*TX:\\s*{tx}\\n')
                test_net.pings(lab, f'ping-{rx}', g, net.net4 + '1', 1400)
                test_net.iperf(lab, f'iperf-{rx}', net, net.net4 + '2', '-n', '4M')
            test_net.rebind(lab, net, g, 2)
            test_net.ends(lab, g)
    with open(sent, 'rb') as f, open('/bin/busybox', 'rb') as b:
        lab.ok('port-bytes', f.read() == b.read(128 << 10), 'other bytes than the guest sent')
    for path in (sent, scratch.path):
        os.unlink(path)


def _test(name, board):
    test = functools.partial(packed, board)
    test.tools, test.long = True, False
    return name, test


TESTS = [_test('packed.q35', 'q35'), _test('packed.micro', 'micro')]
