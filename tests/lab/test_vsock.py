# SPDX-License-Identifier: GPL-2.0-only
"""Sockets between a stock guest and the host, both ways, by Unix sockets and by the host's kernel; in the guest it is socat."""
import contextlib
import functools
import hashlib
import os
import socket
import threading
import time

import guest

MIB = 1 << 20
SIZE = 100 * MIB
HOST = 2  # the host's CID


class Unix:
    """The host's side by Unix sockets."""

    def __init__(self, path):
        self.path = path

    def connect(self, port):
        """A connection to the guest's port; ConnectionError if nobody listens there."""
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(self.path)
            s.sendall(f'CONNECT {port}\n'.encode())
            line = b''
            while not line.endswith(b'\n'):
                c = s.recv(1)
                if not c:
                    raise ConnectionRefusedError(f'port {port}')
                line += c
        except BaseException:
            s.close()
            raise
        if not line.startswith(b'OK '):
            raise guest.Failure(f'CONNECT {port}: {line}')
        return s

    def listen(self, port):
        """A socket for the guest's connections to the port."""
        s = socket.socket(socket.AF_UNIX)
        s.bind(f'{self.path}_{port}')
        s.listen()
        return s


class Kernel:
    """The host's side by its kernel."""

    def __init__(self, cid):
        self.cid = cid

    def connect(self, port):
        """As Unix.connect()."""
        s = socket.socket(socket.AF_VSOCK)
        try:
            s.connect((self.cid, port))
        except BaseException:
            s.close()
            raise
        return s

    @staticmethod
    def listen(port):
        """As Unix.listen()."""
        s = socket.socket(socket.AF_VSOCK)
        s.bind((socket.VMADDR_CID_ANY, port))
        s.listen()
        return s


def to_guest(host, g, port):
    """Send SIZE bytes to the guest, which keeps them in a file: their MD5, and seconds."""
    status, said = g.run(f'tool socat -u VSOCK-LISTEN:{port} OPEN:/tmp/got,creat >/run/socat 2>&1 &')
    if status:
        raise guest.Failure(said)
    end = time.monotonic() + 60
    while True:
        try:
            s = host.connect(port)
            break
        except ConnectionError:
            if time.monotonic() > end:
                raise guest.Failure(f'nobody listens; {g.run("cat /run/socat")}') from None
            time.sleep(0.2)
    md5 = hashlib.md5()
    begin = time.monotonic()
    with s:
        for _ in range(SIZE // MIB):
            block = os.urandom(MIB)
            md5.update(block)
            s.sendall(block)
        s.shutdown(socket.SHUT_WR)
        s.recv(1)
    return md5.hexdigest(), time.monotonic() - begin


def serve(listener, got, answer):
    """Take one connection up to its end; what came goes to the list. The answer is made of it."""
    with listener.accept()[0] as s:
        s.settimeout(120)
        md5 = hashlib.md5()
        size = 0
        with contextlib.suppress(OSError):
            while True:
                data = s.recv(MIB)
                if not data:
                    break
                md5.update(data)
                size += len(data)
        got += [md5.hexdigest(), size]
        if answer:
            s.sendall(md5.hexdigest().encode() + b'\n')


def from_guest(host, port, run, answer=False):
    """Have the guest connect to the port: what it said, then MD5 and size of what came."""
    got = []
    with host.listen(port) as listener:
        listener.settimeout(120)
        thread = threading.Thread(target=serve, args=(listener, got, answer))
        thread.start()
        said = run()
        thread.join()
    return said, (got + [None, None])[:2]


def sockets(board, unix, options, lab):
    """100 MiB each way with sums, ends that are closed by halves, and nobody there."""
    if lab.vmm != 'hako' and unix:
        raise guest.Skip('hako\'s own')
    p = lab.pieces
    cid, port = 10 + lab.index, 5000 + 10 * lab.index
    path = os.path.join(p.scratch, f'{lab.name}.vsock') if unix else None
    host = Unix(path) if unix else Kernel(cid)
    spec = guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], board, memory=512, steps=['toolbox:vda', 'shell'],
                      disks=[guest.Disk(p.tools(), 'toolbox', True)], root=False, vsock=(cid, path), options=options)
    with lab.start(spec) as g:
        g.expect('@@ shell')
        try:
            host.connect(port).close()
            lab.ok('refused', False, 'somebody listens')
        except ConnectionError:
            lab.ok('refused')
        md5, seconds = to_guest(host, g, port)
        status, said = g.run('md5sum </mnt/tmp/got; wc -c </mnt/tmp/got')
        lab.ok('to-guest', status == 0 and said.split() == [md5, '-', str(SIZE)], f'{said} is not {md5}')
        lab.lines.append(f'# {lab.name}: {SIZE / MIB / seconds:.0f} MiB/s to the guest')
        begin = time.monotonic()
        command = f'tool socat -u OPEN:/tmp/got VSOCK-CONNECT:{HOST}:{port + 1}'
        (status, said), got = from_guest(host, port + 1, functools.partial(g.run, command))
        lab.lines.append(f'# {lab.name}: {SIZE / MIB / (time.monotonic() - begin):.0f} MiB/s from the guest')
        lab.ok('to-host', status == 0 and got == [md5, SIZE], f'{said} {got}, not {md5}')
        # The answer comes when the guest has said that it sends no more.
        command = f'echo question | tool socat -t 60 - VSOCK-CONNECT:{HOST}:{port + 2}'
        (status, said), got = from_guest(host, port + 2, functools.partial(g.run, command), True)
        lab.ok('half-closed', status == 0 and said == got[0] == hashlib.md5(b'question\n').hexdigest(), f'{said} {got}')
        status, said = g.run(f'tool socat - VSOCK-CONNECT:{HOST}:{port + 3}')
        lab.ok('nobody', status != 0 and ('reset' in said or 'refused' in said), said)
        os.write(g.keys, b'exit\n')
        lab.ok('poweroff', g.finish() == 0, g.tail())
    if unix:
        lab.ok('removed', not os.path.exists(path))
        for i in range(1, 4):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f'{path}_{port + i}')


TESTS = [
    ('vsock-unix.q35', functools.partial(sockets, 'q35', True, ['--sandbox', 'strict'])),
    ('vsock-unix.micro', functools.partial(sockets, 'micro', True, [])),
    ('vsock-vhost.q35', functools.partial(sockets, 'q35', False, ['--sandbox', 'strict'])),
    ('vsock-vhost.micro', functools.partial(sockets, 'micro', False, [])),
]
for _, function in TESTS:
    function.tools = True
