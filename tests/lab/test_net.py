# SPDX-License-Identifier: GPL-2.0-only
"""Networks over tap: a stock guest, by the kernel (vhost-net) and by the program, and what others see of it.

The guest's tap is a port of a bridge; behind the bridge, in a network namespace, is who talks to it.
"""
import contextlib
import functools
import glob
import json
import os
import re
import shutil
import subprocess
import time

import guest

MAC = '52:54:00:12:34:%02x'


def sh(*args, check=True, timeout=120, **kwargs):
    """Run a program of the host: its output."""
    p = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True,
                       stdin=subprocess.DEVNULL, timeout=timeout, **kwargs)
    if check and p.returncode:
        raise guest.Failure(f'{" ".join(args)}: status {p.returncode}: {p.stdout.strip()}')
    return p.stdout


class Network:
    """A bridge with taps, and a namespace behind it with 10.78.N.1 and fd00:78:N::1."""

    def __init__(self, index, taps=1, queues=1, make=True):
        tag = f'{os.getpid() % 1000}.{index}'
        self.namespace, self.bridge = f'far{tag}', f'br{tag}'
        self.near, self.far = f'vn{tag}', f'vf{tag}'
        self.taps = [f'tp{tag}.{i}' for i in range(taps)]
        self.queues, self.make = queues, make
        self.net4, self.net6 = f'10.78.{index % 250}.', f'fd00:78:{index % 250:x}::'

    def __enter__(self):
        try:
            sh('ip', 'link', 'add', self.bridge, 'type', 'bridge')
        except guest.Failure as e:
            raise guest.Skip(f'no bridge: {e}') from e
        with contextlib.ExitStack() as undo:
            undo.callback(self.__exit__)
            sh('ip', 'netns', 'add', self.namespace)
            sh('ip', 'link', 'add', self.near, 'type', 'veth', 'peer', 'name', self.far, 'netns', self.namespace)
            sh('ip', 'link', 'set', self.near, 'master', self.bridge, 'up')
            # What leaves the bridge leaves it with checksums and in pieces, as on a wire.
            sh('ethtool', '-K', self.near, 'tx', 'off', 'tso', 'off', 'gso', 'off')
            for name in self.taps if self.make else ():
                sh('ip', 'tuntap', 'add', name, 'mode', 'tap', 'vnet_hdr',
                   *(['multi_queue'] if self.queues > 1 else []))
                sh('ip', 'link', 'set', name, 'master', self.bridge, 'up')
            with open(f'/proc/sys/net/ipv6/conf/{self.bridge}/disable_ipv6', 'w', encoding='ascii') as f:
                f.write('1')
            sh('ip', 'link', 'set', self.bridge, 'up')
            self.run('ip', 'link', 'set', 'lo', 'up')
            self.run('ip', 'link', 'set', self.far, 'up')
            self.run('ip', 'addr', 'add', self.net4 + '1/24', 'dev', self.far)
            self.run('ip', 'addr', 'add', self.net6 + '1/64', 'dev', self.far, 'nodad')
            undo.pop_all()
        return self

    def __exit__(self, *_exception):
        sh('ip', 'netns', 'del', self.namespace, check=False)
        for name in [self.near, *self.taps, self.bridge]:
            sh('ip', 'link', 'del', name, check=False)

    def command(self, *args):
        """A command line that runs in the namespace."""
        return ['ip', 'netns', 'exec', self.namespace, *args]

    def run(self, *args, **kwargs):
        """Run a program in the namespace: its output."""
        return sh(*self.command(*args), **kwargs)


def ready(net, g, number=2, nic='eth0'):
    """Give the guest its addresses."""
    g.expect('@@ shell')
    for command in (f'echo 0 >/proc/sys/net/ipv6/conf/{nic}/accept_dad', f'ip link set {nic} up',
                    f'ip addr add {net.net4}{number}/24 dev {nic}',
                    f'ip addr add {net.net6}{number}/64 dev {nic}'):
        status, said = g.run(command)
        if status:
            raise guest.Failure(f'{command}: {said}')


def spec(lab, board, nets, cpus=2, **options):
    """A guest with tools and a shell on its console."""
    p = lab.pieces
    return guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], board, cpus,
                      steps=['toolbox:vda', 'shell'], disks=[guest.Disk(p.tools(), 'toolbox', True)],
                      nets=nets, root=False, **options)


def ends(lab, g):
    """Let the guest power off."""
    os.write(g.keys, b'exit\n')
    status = g.finish()
    lab.ok('poweroff', status == 0, f'exit status {status}; {g.tail()}')


def pings(lab, what, g, address, size=56, count=5):
    """The guest pings; all answers have to come, but for the first, which may wait for a neighbour to be found."""
    program = 'ping6' if ':' in address else 'ping'
    status, said = g.run(f'{program} -c {count} -i 0.1 -W 5 -s {size} {address}')
    received = re.search(r'(\d+) packets received', said)
    lab.ok(what, status == 0 and received and int(received.group(1)) >= count - 1, said)


def iperf(lab, what, net, address, *options):
    """Run iperf3 against the guest's server: bytes a second that arrived."""
    for _ in range(20):
        said = net.run('iperf3', '-J', '-c', address, '--connect-timeout', '20000', *options, check=False)
        try:
            end = json.loads(said)
        except ValueError:
            end = {'error': said}
        # The server ends a test somewhat later than its client.
        if 'busy' not in end.get('error', ''):
            break
        time.sleep(0.5)
    total = end.get('end', {})
    total = total.get('sum_received') or total.get('sum') or {}
    rate = total.get('bits_per_second', 0) * (1 - total.get('lost_percent', 0) / 100)
    lab.ok(what, not end.get('error') and rate > 0, str(end.get('error') or total or said[-500:]))
    lab.lines.append(f'# {lab.name}.{what}: {rate / 1e6:.0f} Mbit/s')
    return rate


def worker_ticks(pid):
    """CPU time of each vhost worker of a process, by the worker's id."""
    found = {}
    for path in glob.glob('/proc/[0-9]*/comm') + glob.glob(f'/proc/{pid}/task/*/comm'):
        with contextlib.suppress(OSError):
            with open(path, encoding='ascii', errors='replace') as f:
                if f.read().strip() != f'vhost-{pid}':
                    continue
            with open(os.path.dirname(path) + '/stat', encoding='ascii', errors='replace') as f:
                fields = f.read().rsplit(')', 1)[1].split()
            found[path.split('/')[-2]] = int(fields[11]) + int(fields[12])
    return found


def checksums(lab, net, address, name):
    """What the guest has sent, as it leaves the bridge, is right in the eyes of tcpdump."""
    path = os.path.join(lab.pieces.scratch, f'{lab.name}.{name}.pcap')
    command = net.command('tcpdump', '-i', net.far, '-s', '0', '-c', '3000', '-w', path, '-U', '-Z', 'root',
                          'src', 'host', address)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as p:
        p.stderr.readline()  # "listening on"
        iperf(lab, f'iperf-{name}-captured', net, address, '-n', '4M', '-R')
        iperf(lab, f'iperf-{name}-udp-captured', net, address, '-t', '1', '-u', '-b', '5M', '-l', '1000', '-R')
        p.terminate()
        p.communicate()
    said = sh('tcpdump', '-r', path, '-nn', '-vv')
    os.unlink(path)
    packets = said.count('cksum')
    bad = [line for line in said.splitlines() if re.search(r'incorrect|bad (udp|tcp|ip)? ?cksum', line)]
    lab.ok(f'checksums-{name}', packets > 100 and not bad, f'{packets} packets, {len(bad)} bad: {bad[:3]}')


def vlan(lab, net, g):
    """A VLAN on both ends: frames with its tag pass, and the others go on."""
    g.run('ip link add link eth0 name eth0.5 type vlan id 5')
    g.run('ip link set eth0.5 up')
    g.run('ip addr add 10.79.5.2/24 dev eth0.5')
    net.run('ip', 'link', 'add', 'link', net.far, 'name', 'vlan5', 'type', 'vlan', 'id', '5')
    net.run('ip', 'link', 'set', 'vlan5', 'up')
    net.run('ip', 'addr', 'add', '10.79.5.1/24', 'dev', 'vlan5')
    pings(lab, 'vlan', g, '10.79.5.1', 1400)
    iperf(lab, 'vlan-tcp', net, '10.79.5.2', '-n', '2M')
    iperf(lab, 'vlan-tcp-from-guest', net, '10.79.5.2', '-n', '2M', '-R')
    pings(lab, 'vlan-besides', g, net.net4 + '1')
    g.run('ip link del eth0.5')


def jumbo(lab, net, g):
    """MTU 9000 from end to end."""
    for name in (net.taps[0], net.near):
        sh('ip', 'link', 'set', name, 'mtu', '9000')
    net.run('ip', 'link', 'set', net.far, 'mtu', '9000')
    status, said = g.run('ip link set eth0 mtu 9000')
    lab.ok('mtu', status == 0, said)
    # With offloads a large packet passes whatever the MTU is.
    g.run('tool ethtool -K eth0 tso off gso off')
    pings(lab, 'mtu-ping', g, net.net4 + '1', 8900)
    iperf(lab, 'mtu-tcp', net, net.net4 + '2', '-n', '2M')
    iperf(lab, 'mtu-tcp-from-guest', net, net.net4 + '2', '-n', '2M', '-R')
    g.run('tool ethtool -K eth0 tso on gso on')
    g.run('ip link set eth0 mtu 1500')


def rebind(lab, net, g, times):
    """Take the driver off and put it on again."""
    for _ in range(times):
        status, said = g.run('cd /sys/bus/virtio/drivers/virtio_net && d=$(echo virtio*) && d=${d%% *} && '
                             'echo $d >unbind && echo $d >bind')
        if status:
            break
        status, said = g.run(f'ip link set eth0 up && ip addr add {net.net4}2/24 dev eth0')
        if status:
            break
        lab.alive('rebind')
    lab.ok('rebind', status == 0, said)
    g.run('tool ethtool -L eth0 combined $(tool ethtool -l eth0 | sed -n "s/^Combined:[^0-9]*//p" | head -n 1)')
    pings(lab, 'rebind-ping', g, net.net4 + '1')


def link(lab, net, g):
    """Each end takes its link down and up again."""
    g.run('ip link set eth0 down')
    status, _ = g.run(f'ping -c 1 -W 1 {net.net4}1')
    lab.ok('guest-link-down', status != 0, 'a ping was answered')
    g.run('ip link set eth0 up')
    pings(lab, 'guest-link-up', g, net.net4 + '1')
    sh('ip', 'link', 'set', net.taps[0], 'down')
    status, _ = g.run(f'ping -c 1 -W 1 {net.net4}1')
    lab.ok('tap-down', status != 0, 'a ping was answered')
    sh('ip', 'link', 'set', net.taps[0], 'up')
    pings(lab, 'tap-up', g, net.net4 + '1', count=8)


CONNECT = '''
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def one(i):
    with socket.create_connection((sys.argv[1], 80), 60) as s:
        s.sendall(b'GET /hello HTTP/1.0\\r\\n\\r\\n')
        data = b''
        while part := s.recv(4096):
            data += part
    if not data.endswith(b'hello\\n'):
        raise OSError(f'connection {i}: {data}')
with ThreadPoolExecutor(8) as pool:  # busybox's httpd has a backlog of 9: what is beyond it is reset when the guest is slow
    list(pool.map(one, range(int(sys.argv[2]))))
'''


def connections(lab, net, g, count):
    """Open and close so many connections."""
    g.run('mkdir -p /run/www && echo hello >/run/www/hello && httpd -h /run/www -p 80')
    for begin in range(0, count, 250):
        said = net.run('python3', '-c', CONNECT, net.net4 + '2', str(min(250, count - begin)), check=False,
                       timeout=220)
        lab.alive(f'{begin} connections')
        if said:
            break
    lab.ok(f'connections-{count}', not said, said[-300:])


def used_queues(lab, g, queues):
    """All pairs are on, and more than one is used."""
    status, said = g.run('tool ethtool -l eth0')
    lab.ok('queues', status == 0 and re.findall(r'Combined:\s+(\d+)', said) == [str(queues)] * 2, said)
    status, said = g.run('tool ethtool -S eth0')
    for way in ('rx', 'tx'):
        used = [n for n in re.findall(rf'{way}_queue_\d+_packets: (\d+)', said) if n != '0']
        lab.ok(f'queues-used-{way}', status == 0 and len(used) > 1, said)


def offloads(lab, g):
    """What tap can do reaches the guest."""
    status, said = g.run('tool ethtool -k eth0')
    missing = [x for x in ('rx-checksumming', 'tx-checksumming', 'tx-tcp-segmentation', 'tx-tcp-ecn-segmentation',
                           'tx-tcp6-segmentation', 'scatter-gather') if f'{x}: on' not in said]
    lab.ok('offloads', status == 0 and not missing, f'off: {missing}; {said}')


def traffic(board, vhost, queues, thorough, lab):
    """All kinds of traffic over one card."""
    with Network(lab.index, queues=queues) as net:
        nets = [guest.Net('tap', MAC % 0x56, tap=net.taps[0], vhost=vhost, queues=queues)]
        with lab.start(spec(lab, board, nets, max(queues, 2))) as g:
            ready(net, g)
            offloads(lab, g)
            pings(lab, 'ping', g, net.net4 + '1')
            pings(lab, 'ping6', g, net.net6 + '1', 1400)
            g.run('tool iperf3 -s -D')
            seconds, size = ('3', '32M') if thorough else ('1', '4M')
            for version, address in ((4, net.net4 + '2'), (6, net.net6 + '2'))[:2 if thorough else 1]:
                iperf(lab, f'tcp{version}-to-guest', net, address, '-n', size, '-P', str(2 * queues))
                iperf(lab, f'tcp{version}-from-guest', net, address, '-n', size, '-P', str(2 * queues), '-R')
            iperf(lab, 'udp-to-guest', net, net.net4 + '2', '-t', seconds, '-u', '-b', '10M', '-l', '1400')
            iperf(lab, 'udp-from-guest', net, net.net4 + '2', '-t', seconds, '-u', '-b', '10M', '-l', '1400', '-R')
            if queues > 1:
                used_queues(lab, g, queues)
            workers = worker_ticks(g.process.pid)
            if vhost == 'on':
                lab.ok('workers', len(workers) == queues and any(workers.values()), str(workers))
            else:
                lab.ok('workers', not workers, str(workers))
            checksums(lab, net, *(net.net4 + '2', 'ipv4') if queues == 1 else (net.net6 + '2', 'ipv6'))
            if thorough:
                checksums(lab, net, *(net.net6 + '2', 'ipv6') if queues == 1 else (net.net4 + '2', 'ipv4'))
            vlan(lab, net, g)
            jumbo(lab, net, g)
            link(lab, net, g)
            rebind(lab, net, g, 20 if thorough else 2)
            connections(lab, net, g, 100)
            ends(lab, g)


def many_connections(board, vhost, queues, lab):
    """10,000 connections are opened and closed."""
    with Network(lab.index, queues=queues) as net:
        nets = [guest.Net('tap', MAC % 0x56, tap=net.taps[0], vhost=vhost, queues=queues)]
        with lab.start(spec(lab, board, nets, max(queues, 2))) as g:
            ready(net, g)
            connections(lab, net, g, 10000)
            pings(lab, 'ping', g, net.net4 + '1')
            ends(lab, g)


def features(board, vhost, lab):
    """The guest sees the same features as under QEMU."""
    seen = {}
    for vmm in (lab.vmm, 'qemu'):
        with Network(lab.index) as net:
            nets = [guest.Net('tap', MAC % 0x56, tap=net.taps[0], vhost=vhost)]
            with lab.start(spec(lab, board, nets, 1), vmm) as g:
                g.expect('@@ shell')
                status, seen[vmm] = g.run('tool ethtool -k eth0')
                lab.ok(f'ethtool-{vmm}', status == 0 and 'tcp-segmentation-offload: on' in seen[vmm], seen[vmm])
                ends(lab, g)
    ours, theirs = (set(seen[x].splitlines()) for x in (lab.vmm, 'qemu'))
    lab.ok('same', ours == theirs, f'hako only: {sorted(ours - theirs)}; QEMU only: {sorted(theirs - ours)}')


def talk(lab, net, a, b):
    """Guests .2 and .3 talk to each other, and end."""
    pings(lab, 'ping', a, net.net4 + '3')
    pings(lab, 'ping6', b, net.net6 + '2', 1400)
    a.run('tool iperf3 -s -D')
    for what, options in (('tcp', ''), ('tcp-back', '-R'), ('udp', '-u -b 10M')):
        status, said = b.run(f'tool iperf3 -c {net.net4}2 -t 2 {options}')
        lab.ok(what, status == 0 and 'receiver' in said, said)
    a.run('mkdir -p /run/srv && dd if=/dev/urandom of=/run/srv/file bs=64k count=64 2>/dev/null && '
          'httpd -h /run/srv -p 80')
    sums = [g.run(c)[1] for g, c in ((a, 'sha256sum </run/srv/file'),
                                     (b, f'wget -q -O - http://{net.net4}2/file | sha256sum'))]
    lab.ok('file', sums[0] == sums[1] and len(sums[0]) > 60, str(sums))
    for g in (a, b):
        ends(lab, g)


def two_guests(board, vhost, queues, lab):
    """Two guests joined by a bridge, which the VMM joins itself."""
    if lab.vmm != 'hako':
        raise guest.Skip('options of hako')
    with Network(lab.index, taps=2, queues=queues, make=False) as net, contextlib.ExitStack() as stack:
        guests = []
        for i in range(2):
            nets = [guest.Net('tap', MAC % (0x60 + i), tap=net.taps[i], vhost=vhost, queues=queues,
                              options=f',br={net.bridge}')]
            guests.append(stack.enter_context(lab.start(spec(lab, board, nets, queues))))
        for i, g in enumerate(guests):
            ready(net, g, 2 + i)
        talk(lab, net, *guests)


class Wire:
    """Addresses of guests that are joined by nothing of the host's."""

    def __init__(self, index):
        self.net4, self.net6 = f'10.78.{index % 250}.', f'fd00:78:{index % 250:x}::'


def stream(lab):
    """Two guests joined by a socket, without root's help."""
    if lab.vmm != 'hako':
        raise guest.Skip('options of hako')
    where = f'addr.type=unix,addr.path={lab.pieces.scratch}/{lab.name}'
    net = Wire(lab.index)
    with contextlib.ExitStack() as stack:
        guests = []
        for i, more in enumerate((',server=on', ',reconnect=1')):
            nets = [guest.Net('stream', MAC % (0x70 + i), options=f',{where}{more}')]
            guests.append(stack.enter_context(lab.start(spec(lab, 'q35', nets, 1))))
        for i, g in enumerate(guests):
            ready(net, g, 2 + i)
        talk(lab, net, *guests)


class OpenVSwitch:
    """A switch of its own, with its database and daemon, on the kernel's datapath."""

    def __init__(self, directory, name):
        self.dir, self.name, self.daemons = directory, name, []
        self.env = dict(os.environ, **{f'OVS_{x}DIR': directory for x in ('RUN', 'DB', 'LOG', 'SYSCONF')})

    def daemon(self, *command):
        self.daemons.append(subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL,
                                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def configure(self, *command):
        return sh('ovs-vsctl', f'--db=unix:{self.dir}/db.sock', '--timeout=60', *command, env=self.env)

    def __enter__(self):
        with contextlib.ExitStack() as undo:
            undo.callback(self.__exit__)
            os.mkdir(self.dir)
            sh('ovsdb-tool', 'create', f'{self.dir}/conf.db', '/usr/share/openvswitch/vswitch.ovsschema')
            self.daemon('ovsdb-server', f'{self.dir}/conf.db', f'--remote=punix:{self.dir}/db.sock', '--no-chdir')
            for _ in range(100):
                if os.path.exists(f'{self.dir}/db.sock'):
                    break
                time.sleep(0.1)
            self.configure('--no-wait', 'init')
            self.daemon('ovs-vswitchd', f'unix:{self.dir}/db.sock', '--no-chdir')
            self.configure('add-br', self.name)
            undo.pop_all()
        return self

    def __exit__(self, *_exception):
        for p in reversed(self.daemons):
            p.terminate()
            p.wait()
        sh('ip', 'link', 'del', self.name, check=False)


def open_vswitch(vhost, lab):
    """Two guests joined by Open vSwitch."""
    if not shutil.which('ovs-vswitchd'):
        raise guest.Skip('no Open vSwitch (Debian: openvswitch-switch)')
    with Network(lab.index, taps=2) as net, contextlib.ExitStack() as stack:
        switch = stack.enter_context(OpenVSwitch(f'{lab.pieces.scratch}/{lab.name}', f'ovs{lab.index}'))
        guests = []
        for i, tap in enumerate(net.taps):
            sh('ip', 'link', 'set', tap, 'nomaster')
            switch.configure('add-port', switch.name, tap)
            nets = [guest.Net('tap', MAC % (0x80 + i), tap=tap, vhost=vhost)]
            guests.append(stack.enter_context(lab.start(spec(lab, 'q35', nets, 1))))
        for i, g in enumerate(guests):
            ready(net, g, 2 + i)
        talk(lab, net, *guests)
        flows = sh('ovs-appctl', '-t', glob.glob(f'{switch.dir}/ovs-vswitchd.*.ctl')[0], 'fdb/show', switch.name,
                   env=switch.env)
        lab.ok('switch', all(MAC % (0x80 + i) in flows for i in range(2)), flows)


def rss(lab):
    """The guest chooses the queues, by a hash that it is told."""
    if lab.vmm != 'hako':
        raise guest.Skip('options of hako')
    with Network(lab.index, queues=2) as net:
        nets = [guest.Net('tap', MAC % 0x56, tap=net.taps[0], vhost='off', queues=2, options=',rss=on,hash=on')]
        with lab.start(spec(lab, 'q35', nets, 2)) as g:
            ready(net, g)
            status, said = g.run('tool ethtool -K eth0 rxhash on; tool ethtool -k eth0')
            lab.ok('hash', status == 0 and 'receive-hashing: on' in said, said)
            status, said = g.run('tool ethtool -x eth0')
            lab.ok('table', status == 0 and 'toeplitz: on' in said, said)
            pings(lab, 'ping', g, net.net4 + '1')
            g.run('tool iperf3 -s -D')
            iperf(lab, 'tcp', net, net.net4 + '2', '-n', '4M', '-P', '4')
            # All to the second queue: it counts, the first does not.
            status, said = g.run('tool ethtool -X eth0 weight 0 1')
            lab.ok('weight', status == 0, said)
            before = [int(x) for x in re.findall(r'rx_queue_\d_packets: (\d+)', g.run('tool ethtool -S eth0')[1])]
            pings(lab, 'ping-second', g, net.net4 + '1', count=20)
            after = [int(x) for x in re.findall(r'rx_queue_\d_packets: (\d+)', g.run('tool ethtool -S eth0')[1])]
            lab.ok('second', after[1] - before[1] >= 15, f'{before} {after}')
            ends(lab, g)


def bare_metal(lab):
    """The bare-metal driver, and the unit tests, with the kernel's vhost-net."""
    if not os.path.exists('/dev/vhost-net'):
        raise guest.Skip('no /dev/vhost-net')
    for line in sh(os.path.join(guest.TOP, 'tests', 'guest', 'run'), '*/net-vhost*', check=False).splitlines():
        found = re.match(r'(ok|not ok|skip) (\w+)/([^\s:]+):? ?(.*)', line)
        if found:
            word, board, name, why = found.groups()
            lab.ok(f'{board}.{name}', word == 'ok', why)
    unit = os.path.join(guest.TOP, 'build-san', 'unit', 'test_vhost_kernel')
    if os.path.exists(unit):
        said = sh(unit, check=False)
        lab.ok('unit', re.search(r'^100%: Checks: [1-9]', said, re.M), said)


def _test(name, function, *args, long=False):
    test = functools.partial(function, *args)
    test.tools, test.long = True, long
    return name, test


TESTS = [
    _test('net.vhost.4queues.q35', traffic, 'q35', 'on', 4, False),
    _test('net.loop.1queue.micro', traffic, 'micro', 'off', 1, False),
    _test('net.bare-metal', bare_metal),
]
TESTS += [_test(f'net-long.{"vhost" if vhost == "on" else "loop"}.{queues}queue{"s" if queues > 1 else ""}.{board}',
                traffic, board, vhost, queues, True, long=True)
          for vhost in ('on', 'off') for queues in (1, 4) for board in ('q35', 'micro')]
TESTS += [_test(f'net-long.features.{board}.{vhost}', features, board, vhost, long=True)
          for board in ('q35', 'micro') for vhost in ('on', 'off')]
# Tests of their own, since each takes minutes in the lab.
TESTS += [_test('net-long.connections.vhost.q35', many_connections, 'q35', 'on', 1, long=True),
          _test('net-long.connections.loop.micro', many_connections, 'micro', 'off', 1, long=True)]
TESTS += [_test('net-long.rss', rss, long=True), _test('net-long.stream', stream, long=True)]
TESTS += [_test(f'net-long.open-vswitch.{vhost}', open_vswitch, vhost, long=True) for vhost in ('on', 'off')]
TESTS += [_test(f'net-long.two-guests.{vhost}', two_guests, 'q35', vhost, 2, long=True) for vhost in ('on', 'off')]
