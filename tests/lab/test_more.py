# SPDX-License-Identifier: GPL-2.0-only
"""Debian's cloud kernel in less usual settings."""
import functools
import hashlib
import os
import re
import socket
import subprocess

import guest


def model():
    """The step that looks for this processor's name."""
    with open('/proc/cpuinfo', encoding='utf-8') as f:
        name = re.search(r'^model name\s*: (.*\n)', f.read(), re.M).group(1)
    return 'model:' + hashlib.sha256(name.encode()).hexdigest()


def boots(board, steps, options, lab):
    """A guest takes the steps and powers off. Options: of guest.Spec."""
    p = lab.pieces
    options = dict(options)
    disks = []
    steps = [model() if s == 'model' else s for s in steps]
    if options.pop('disk', False):
        disks = [guest.Disk(p.root(lab.name)), guest.Disk(p.blank(lab.name, 8 << 20), 'scratch')]
    spec = guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], board, steps=steps, disks=disks,
                      **options)
    with lab.start(spec) as g:
        g.expect('@@ init')
        status = g.finish()
        lab.steps(g, [s.split(':')[0] for s in steps])
        lab.ok('poweroff', status == 0, f'exit status {status}; {g.tail()}')
    for d in disks:
        os.unlink(d.path)


def many_cpus(lab):
    """APIC IDs beyond 8 bits; one of them is started."""
    if lab.vmm != 'hako':
        raise guest.Skip('more than QEMU has without an IOMMU')
    boots('micro', ['online:299'], {'cpus': 300, 'append': 'maxcpus=1'}, lab)


def consoles(board, lab):
    """A virtio console and a port: both ways, and much at once."""
    if lab.vmm != 'hako':
        raise guest.Skip('options of hako')
    p = lab.pieces
    path = os.path.join(p.scratch, f'{lab.name}.socket')
    sent = os.path.join(p.scratch, f'{lab.name}.sent')
    spec = guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], board, steps=['hvc', 'port:lab.port'],
                      options=['--device', 'virtio-serial',
                               '--chardev', f'socket,id=c,path={path},server=on,wait=off',
                               '--device', 'virtconsole,chardev=c', '--chardev', f'file,id=f,path={sent}',
                               '--device', 'virtserialport,chardev=f,name=lab.port'])
    with lab.start(spec) as g, socket.socket(socket.AF_UNIX) as s:
        g.expect('', 120)
        s.settimeout(120)
        s.connect(path)
        heard = b''
        while b'hvc says hello' not in heard:
            heard += s.recv(4096) or b'hvc says hello: the other side has closed'
        lab.ok('out', b'closed' not in heard, heard.decode(errors='replace'))
        s.sendall(b'hello hvc\n')
        g.expect('@@ port')
        lab.steps(g, ['hvc', 'port'])
        lab.ok('poweroff', g.finish() == 0)
    with open(sent, 'rb') as f, open('/bin/busybox', 'rb') as b:
        lab.ok('port-bytes', f.read() == b.read(128 << 10), 'other bytes than the guest sent')
    os.unlink(sent)


def queues(board, options, lab):
    """A disk with queues of its own thread, and past the host's page cache: fio with verification."""
    if lab.vmm != 'hako':
        raise guest.Skip('options of hako')
    p = lab.pieces
    folder = os.path.join(p.scratch, lab.name)
    made = f'{folder}.fs'
    with open(made, 'wb') as f:
        f.truncate(96 << 20)
    os.mkdir(folder)
    subprocess.run(['/sbin/mke2fs', '-q', '-F', made], check=True)
    if subprocess.run(['mount', '-o', 'loop', made, folder], check=False).returncode:
        raise guest.Skip('no file system with O_DIRECT can be made here')
    try:
        root = p.root(f'{lab.name}/root')
        spec = guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], board, 2,
                          steps=['mount', 'fio:vdb'], disks=[
                              guest.Disk(root, options=options), guest.Disk(p.tools(), 'toolbox', True)],
                          options=['--iothread', 'io0'])
        with lab.start(spec) as g:
            status = g.finish(240)
            lab.steps(g, ['mount', 'fio'])
            lab.ok('poweroff', status == 0, f'exit status {status}; {g.tail()}')
    finally:
        subprocess.run(['umount', folder], check=False)
        os.rmdir(folder)
        os.unlink(made)


def cpu_model(model, lab):
    """Linux finds the same flags under hako as under QEMU."""
    p, seen = lab.pieces, {}
    for vmm in ('qemu', 'hako'):
        spec = guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], 'q35', 2, steps=['shell'], cpu=model)
        with lab.start(spec, vmm) as g:
            g.expect('@@ shell')
            seen[vmm] = {key: g.run(f'grep "^{key}" /proc/cpuinfo')[1] for key in ('flags', 'model name', 'address sizes')}
            seen[vmm]['flags'] = ' '.join(sorted(seen[vmm]['flags'].split('\n')[0].split(':')[1].split()))
            os.write(g.keys, b'exit\n')
            g.finish()
    for key, value in seen['qemu'].items():
        more = set(seen['hako'][key].split()) ^ set(value.split())
        lab.ok(key.replace(' ', '-'), value and value == seen['hako'][key], f'differs: {sorted(more)}')


def _named(name, board, steps, **options):
    return name, functools.partial(boots, board, steps, options)


def _with_tools(test):
    test.tools = True
    return test


TESTS = [
    # RAM on both sides of the hole below 4 GiB.
    _named('memory.q35', 'q35', ['memory:5000000'], memory=5120),
    _named('memory.micro', 'micro', ['memory:5000000'], memory=5120),
    _named('cpus.q35', 'q35', ['cpus:4', 'topology:0.0-1+0.0-1+1.2-3+1.2-3', 'model'], cpus='4,sockets=2,cores=1,threads=2'),
    _named('cpus.micro', 'micro', ['cpus:4', 'model'], cpus=4),
    ('cpus-300.micro', many_cpus),
    ('cpu-model.epyc', functools.partial(cpu_model, 'EPYC,check=off')),
    ('cpu-model.nehalem', functools.partial(cpu_model, 'Nehalem,+aes,-sse4.2,check=off')),
    # Neither PIC nor PIT.
    _named('split.q35', 'q35', ['cpus:2', 'mount', 'discard:vdb'], cpus=2, disk=True,
           options=['--machine', 'q35,kernel-irqchip=split']),
    # The kernel unpacks itself.
    _named('decompress-in-guest', 'micro', ['info'], options=['--kernel-decompress', 'guest']),
    # Without io_uring.
    _named('loop-threads.q35', 'q35', ['mount', 'discard:vdb'], disk=True, options=['--loop', 'threads']),
    _named('loop-threads.micro', 'micro', ['mount', 'discard:vdb'], disk=True,
           options=['--loop', 'threads']),
    ('console.q35', functools.partial(consoles, 'q35')),
    ('console.micro', functools.partial(consoles, 'micro')),
    ('iothread.q35', _with_tools(functools.partial(
        queues, 'q35', ',num-queues=2,iothread=io0,cache.direct=on'))),
    # Each queue in a thread of its own.
    ('iothread.micro', _with_tools(functools.partial(
        queues, 'micro', ',num-queues=2,iothread-vq-mapping.0.iothread=io0,iothread-vq-mapping.1.iothread=io1,'
        'cache.direct=on'))),
]
