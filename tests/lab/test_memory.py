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


def reporting(board, lab):
    """What has become free comes back by itself: the page cache of a file, dropped."""
    p = lab.pieces
    if lab.vmm != 'hako':
        raise guest.Skip('an option of hako')
    spec = spec_with(lab, board, 512, 'on,free-page-reporting=on')
    spec.disks = [guest.Disk(p.blank(lab.name, 256 * MIB), 'file')]
    with lab.start(spec) as g:
        g.expect('@@ shell')
        boot = resident(g)
        g.run('dd if=/dev/vda of=/dev/null bs=1M')
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


TESTS = [
    ('balloon.q35', functools.partial(balloon, 'q35', [])),
    ('balloon.micro', functools.partial(balloon, 'micro', [])),
    # In a memfd.
    ('balloon-shared.micro', functools.partial(balloon, 'micro', ['--memory', '512M,share=on'])),
    ('balloon-size', first_size),
    ('free-page-reporting.q35', functools.partial(reporting, 'q35')),
    ('free-page-reporting.micro', functools.partial(reporting, 'micro')),
]
