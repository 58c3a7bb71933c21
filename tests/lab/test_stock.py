# SPDX-License-Identifier: GPL-2.0-only
"""Debian's kernels, unmodified: disk, networks, restart, end, and what the kernel has to say."""
import contextlib
import functools
import hashlib
import http.server
import ipaddress
import os
import subprocess
import threading
import urllib.request

import guest


class Files(http.server.BaseHTTPRequestHandler):
    """Serves one file, whatever is asked for."""
    body = hashlib.shake_128(b'from the host').digest(1 << 20)

    def do_GET(self):  # pylint: disable=invalid-name
        """Answer."""
        self.send_response(200)
        self.send_header('Content-Length', str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args):  # pylint: disable=arguments-differ
        """Say nothing."""


@contextlib.contextmanager
def web(address):
    """An HTTP server: its port."""
    with http.server.ThreadingHTTPServer((address, 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def tap(index):
    """A tap interface with an address: (name, host's address, guest's address with length)."""
    name = f'hako{os.getpid() % 1000}.{index}'
    net = ipaddress.ip_network((int(ipaddress.ip_address('10.77.0.0')) + index * 4, 30))
    host, peer = net.hosts()
    made = subprocess.run(['ip', 'tuntap', 'add', name, 'mode', 'tap', 'vnet_hdr'], check=False,
                          stderr=subprocess.PIPE, text=True)
    if made.returncode:
        raise guest.Skip(f'no tap interface: {made.stderr.strip()}')
    try:
        subprocess.run(['ip', 'addr', 'add', f'{host}/30', 'dev', name], check=True)
        subprocess.run(['ip', 'link', 'set', name, 'up'], check=True)
        yield name, str(host), str(peer)
    finally:
        subprocess.run(['ip', 'link', 'del', name], check=False)


def download(address, port):
    """What the guest's web server has to give."""
    with urllib.request.urlopen(f'http://{address}:{port}/payload', timeout=20) as answer:
        body = answer.read()
    with urllib.request.urlopen(f'http://{address}:{port}/cgi-bin/done', timeout=20) as answer:
        answer.read()
    return body


def payload():
    """What the root image holds (tests/lab/mkroot)."""
    out, block = bytearray(), b'hako'
    while len(out) < 1 << 20:
        block = hashlib.sha256(block).digest()
        out += block
    return bytes(out)


def fetch_from(lab, name, address, port):
    """Fetch a file from the guest."""
    try:
        lab.ok(name, download(address, port) == payload(), 'other bytes than the guest has')
    except OSError as e:
        lab.ok(name, False, str(e))


MACS = ('52:54:00:12:34:56', '52:54:00:12:34:57')


def everything(kernel, cpus, board, lab):
    """One guest with two disks and two networks: all steps, a restart, an end; then the same under QEMU."""
    p = lab.pieces
    with tap(lab.index) as (ifname, host, peer), web('127.0.0.1') as local, web(host) as remote:
        forward = guest.free_port()
        digest = hashlib.sha256(Files.body).hexdigest()
        steps = ['info', f'cpus:{cpus}', 'mount', 'blk:vdb=toolbox=1', 'discard:vdc', 'fio:vdb', 'rng',
                 f'net:{MACS[0]}=dhcp', f'net:{MACS[1]}={peer}/30',
                 f'fetch:http://10.0.2.2:{local}/file={digest}',
                 f'fetch:http://{host}:{remote}/file={digest}', 'serve:2', 'dmesg', 'reboot']
        disks = [guest.Disk(p.root(lab.name)), guest.Disk(p.tools(), 'toolbox', True),
                 guest.Disk(p.blank(lab.name, 8 << 20), 'scratch')]
        nets = [guest.Net('user', MACS[0], forward=forward), guest.Net('tap', MACS[1], tap=ifname)]
        make = functools.partial(guest.Spec, p.paths[f'kernel-{kernel}'], p.paths[f'initrd-{kernel}'],
                                 board, cpus, disks=disks, nets=nets, rng=True)
        with lab.start(make(steps=steps)) as g:
            g.expect('@@ init 1')
            lab.ok('boot')
            g.expect('@@ serving')
            fetch_from(lab, 'fetch-from-guest-user', '127.0.0.1', forward)
            fetch_from(lab, 'fetch-from-guest-tap', peer, 80)
            g.expect('@@ rebooting')
            g.expect('@@ init 2')
            g.expect('@@ poweroff')
            status = g.finish()
            lab.steps(g, ['cpus', 'mount', 'blk', 'discard', 'fio', 'rng', 'net', 'fetch', 'serve', 'reboot'])
            lab.ok('poweroff', status == 0, f'exit status {status}')
            warnings = g.warnings()
        checked = subprocess.run(['/sbin/e2fsck', '-fn', disks[0].path], check=False,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lab.ok('fsck', checked.returncode == 0, checked.stdout.replace('\n', ' | '))
        with lab.start(make(steps=['dmesg']), 'qemu') as g:
            status = g.finish()
            known = g.warnings()
            if status != 0 or b'@@ dmesg ends' not in g.console:
                raise guest.Failure(f'the same guest under QEMU: status {status}; {g.tail()}')
        new = [line for line in warnings if line not in known]
        lab.ok('dmesg', not new, ' | '.join(new))
        for d in disks:
            if d.path != p.tools():
                os.unlink(d.path)


everything.tools = True


def _named(name, function, *args):
    test = functools.partial(function, *args)
    test.tools = getattr(function, 'tools', False)
    return name, test


TESTS = [_named(f'stock.{kernel}.{cpus}cpu.{board}', everything, kernel, cpus, board)
         for kernel in guest.FLAVOURS for board in ('q35', 'micro') for cpus in (2, 1)]
