# SPDX-License-Identifier: GPL-2.0-only
"""What guests give back of their memory, as the host sees it."""
import functools
import os
import re
import time

import guest

MIB = 1 << 20
ZEROES = '1f5039e50bd66b290c56684d8550c6c2'  # MD5 of 256 MiB of them


def resident(g):
    """MiB of the process that the host has pages for."""
    with open(f'/proc/{g.process.pid}/status', encoding='ascii') as f:
        return int(re.search(r'^VmRSS:\s+(\d+)', f.read(), re.M).group(1)) >> 10


def until(what, timeout=120):
    """Ask again until the answer is true, or it has taken too long."""
    end = time.monotonic() + timeout
    while not what() and time.monotonic() < end:
        time.sleep(0.5)
    return what()


def use(g, mib):
    """Have the guest touch so much of its memory, and free it."""
    status, said = g.run(f'mkdir -p /run/used && mount -t tmpfs -o size={mib + 8}m used /run/used && '
                         f'dd if=/dev/urandom of=/run/used/file bs=1M count={mib} && umount /run/used')
    if status:
        raise guest.Failure(said)


def spec_with(lab, board, memory, balloon):
    """A guest whose console takes commands."""
    return guest.Spec(lab.pieces.paths['kernel-cloud'], lab.pieces.paths['initrd-cloud'], board, memory=memory,
                      steps=['shell'], options=['--balloon', balloon])


def total(g):
    """The guest's MemTotal, MiB."""
    return int(g.run("awk '/^MemTotal/ { print $2 }' /proc/meminfo")[1]) >> 10


def balloon(board, options, lab):
    """Inflate and deflate while the guest runs."""
    if lab.vmm != 'hako':
        raise guest.Skip('the library is hako\'s')
    spec = spec_with(lab, board, 512, 'on,guest-stats-polling-interval=1')
    spec.options += options
    with lab.start(spec, 'libhako') as g:
        g.expect('@@ shell')
        control = g.monitor.makefile('rw', encoding='ascii')

        def ask(line):
            control.write(line + '\n')
            control.flush()
            return control.readline().split()

        def reached(mib):
            return ask('info')[:2] == [str(mib * MIB)] * 2

        use(g, 300)
        seen, before = total(g), resident(g)
        lab.ok('asked', ask(f'balloon {192 * MIB}') == ['ok'])
        lab.ok('inflated', until(lambda: reached(192)), f'{ask("info")}')
        inflated = resident(g)
        lab.lines.append(f'# {lab.name}: RSS {before} MiB, inflated by 320 MiB {inflated} MiB')
        lab.ok('given-back', before > 330 and inflated < before - 150 and inflated < 270, f'RSS {before} MiB, then {inflated} MiB')
        lab.ok('total', total(g) == seen - 320, f'the guest sees {seen} MiB, then {total(g)} MiB')
        lab.ok('statistics', until(lambda: int(ask('info')[4]) >> 20 == seen - 320), f'{ask("info")}')
        ask(f'balloon {512 * MIB}')
        lab.ok('deflated', until(lambda: reached(512)), f'{ask("info")}')
        lab.ok('total-again', total(g) == seen, f'the guest sees {seen} MiB, then {total(g)} MiB')
        use(g, 300)
        lab.ok('usable', resident(g) > inflated + 100, f'RSS {inflated} MiB, then {resident(g)} MiB')
        os.write(g.keys, b'exit\n')
        lab.ok('poweroff', g.finish() == 0, g.tail())


def reporting(board, options, lab):
    """What has become free comes back by itself: the page cache of a file, dropped."""
    p = lab.pieces
    if lab.vmm != 'hako':
        raise guest.Skip('an option of hako')
    spec = spec_with(lab, board, 512, 'on,free-page-reporting=on')
    spec.disks = [guest.Disk(p.blank(lab.name, 256 * MIB), 'file')]
    spec.options += options
    with lab.start(spec) as g:
        g.expect('@@ shell')
        boot = resident(g)
        # Held open, since a disk's cache is dropped when nobody has it open any more.
        g.run('sleep 1000 </dev/vda >/dev/null 2>&1 & dd if=/dev/vda of=/dev/null bs=1M; sleep 5')
        read = resident(g)
        g.run('sync; echo 3 >/proc/sys/vm/drop_caches')
        done = until(lambda: resident(g) < read - 150)
        after = resident(g)
        lab.lines.append(f'# {lab.name}: RSS after boot {boot} MiB, after reading 256 MiB {read} MiB, dropped {after} MiB')
        lab.ok('cached', read > boot + 200, f'RSS {boot} MiB, then {read} MiB')
        lab.ok('given-back', done, f'RSS {read} MiB, then {after} MiB')
        status, said = g.run('dd if=/dev/vda bs=1M | md5sum')
        lab.ok('reads-again', status == 0 and ZEROES in said, said)
        os.write(g.keys, b'exit\n')
        lab.ok('poweroff', g.finish() == 0, g.tail())
    os.unlink(spec.disks[0].path)


def first_size(lab):
    """--balloon SIZE is there from the driver's start; under pressure some comes back instead of killing."""
    if lab.vmm != 'hako':
        raise guest.Skip('an option of hako')
    spec = spec_with(lab, 'q35', 512, '160M,deflate-on-oom=on')
    with lab.start(spec) as g:
        g.expect('@@ shell')

        def available():
            return int(g.run("awk '/^MemFree/ { print $2 }' /proc/meminfo")[1]) >> 10

        lab.ok('inflated', until(lambda: available() < 140), f'{available()} MiB are free')
        use(g, 300)
        lab.ok('no-oom', 'Out of memory' not in g.run('dmesg')[1], 'processes were killed')
        os.write(g.keys, b'exit\n')
        lab.ok('poweroff', g.finish() == 0, g.tail())


def hardware(g):
    """What numactl -H says: the nodes' CPUs and distances, and their sizes in MiB."""
    status, said = g.run('tool numactl -H')
    if status:
        raise guest.Failure(said)
    sizes = [int(x) for x in re.findall(r'^node \d+ size: (\d+) MB', said, re.M)]
    return [x.split() for x in said.split('\n') if not re.search(' (size|free):', x)], sizes


def topology(board, memory, nodes, distances, ranges, lab):
    """A guest's numactl sees the nodes asked for, and the same as under QEMU; and the kernel where their memory is."""
    p, seen = lab.pieces, {}
    for vmm in ('hako', 'qemu'):
        # QEMU's microvm has no NUMA.
        spec = guest.Spec(p.paths['kernel-cloud'], p.paths['initrd-cloud'], board if vmm == 'hako' else 'q35', '4,sockets=2',
                          memory, ['toolbox:vda', 'shell'], disks=[guest.Disk(p.tools(), 'toolbox', True)], root=False,
                          numa=nodes, distances=distances)
        with lab.start(spec, vmm) as g:
            g.expect('@@ shell')
            seen[vmm] = hardware(g)
            lines = g.run('dmesg | grep "ACPI: SRAT: Node"')[1]
            os.write(g.keys, b'exit\n')
            g.finish()
        if vmm == 'hako':
            found = re.findall(r'Node (\d+) PXM \d+ \[mem (0x\w+)-(0x\w+)\]', lines)
            lab.ok('ranges', [(int(n), int(a, 16), int(b, 16) + 1) for n, a, b in found] == ranges, lines)
    said, sizes = seen['hako']
    lab.lines += [f'# {lab.name}: ' + ' '.join(x) for x in said]
    lab.lines.append(f'# {lab.name}: MiB {sizes}, under QEMU {seen["qemu"][1]}')
    lab.ok('nodes', said == seen['qemu'][0], f'{said}, under QEMU {seen["qemu"][0]}')
    cpus = [x[3:] for x in said if x[2:3] == ['cpus:']]
    want = [[] if not c else [str(i) for i in range(int(c[0]), int(c[-1]) + 1)] for c, _ in nodes]
    lab.ok('cpus', cpus == want, f'{cpus}')
    matrix = [x[1:] for x in said if x[0].rstrip(':').isdigit()]
    far = {(a, b): d for a, b, d in distances} | {(b, a): d for a, b, d in distances}
    want = [[str(far.get((i, k), 10 if i == k else 20)) for k in range(len(nodes))] for i in range(len(nodes))]
    lab.ok('distances', matrix == want, f'{matrix}')
    # What the kernel itself has is not in there, and it is in one node or another, at random under QEMU.
    lab.ok('sizes', len(sizes) == len(nodes) and all(m - 160 < s <= m for (_, m), s in zip(nodes, sizes)) and
           abs(sum(sizes) - sum(seen['qemu'][1])) < 16, f'{sizes}, under QEMU {seen["qemu"][1]}')


topology.tools = True


def _nodes(name, board, *args):
    test = functools.partial(topology, board, *args)
    test.tools = True
    return f'{name}.{board}', test


TESTS = [
    _nodes('numa', 'q35', 512, [('0-1', 192), ('2-3', 320)], [(0, 1, 21)],
           [(0, 0, 192 * MIB), (1, 192 * MIB, 512 * MIB)]),
    _nodes('numa', 'micro', 512, [('0-2', 192), ('3', 192), ('', 128)], [(0, 1, 15), (0, 2, 30), (1, 2, 40)],
           [(0, 0, 192 * MIB), (1, 192 * MIB, 384 * MIB), (2, 384 * MIB, 512 * MIB)]),
    # One node has RAM on both sides of the hole.
    _nodes('numa-hole', 'q35', 5120, [('0-1', 1024), ('2-3', 4096)], [],
           [(0, 0, 1 << 30), (1, 1 << 30, 2 << 30), (1, 4 << 30, 7 << 30)]),
    ('balloon.q35', functools.partial(balloon, 'q35', [])),
    ('balloon.micro', functools.partial(balloon, 'micro', [])),
    # In a memfd.
    ('balloon-shared.micro', functools.partial(balloon, 'micro', ['--memory', '512M,share=on'])),
    ('balloon-size', first_size),
    ('free-page-reporting.q35', functools.partial(reporting, 'q35', [])),
    # A system call that is not allowed would end it.
    ('free-page-reporting.micro', functools.partial(reporting, 'micro', ['--sandbox', 'strict'])),
]
