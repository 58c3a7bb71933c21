# SPDX-License-Identifier: GPL-2.0-only
"""
Disk images: qcow2 beside raw under the bare-metal guest's driver, hako img beside qemu-img with the same arguments,
conversions, and what opening a large image costs.
"""
import json
import os
import re
import shutil
import subprocess
import tempfile
import time

import disk
import start
from measure import PROGRAMS, Failure, Spec, metrics, present, rotated

SIZE = 1 << 30
CHAIN = 8
TOOLS = 'hako', 'qemu-img'
CONVERSIONS = {  # what is promised in terms of qemu-img, and the arguments
    'qcow2': (1, ('-O', 'qcow2')), 'raw': (1, ('-O', 'raw')), 'compressed': (0.5, ('-c', '-O', 'qcow2')),
}
METRICS = (
    *(spec for op in ('read', 'write') for spec in (
        Spec(f'images.{op}', f'random {op}s of 4 KiB by a guest, depth {disk.DEPTH}, cached', 'thousand/s', better='higher',
             subject='hako qcow2', limit='hako raw', promises=(('hako raw', '>=', 0.95),)),
        Spec(f'images.{op}.cpu', f'CPU time per {op} of VMM and guest', 'us', subject='hako qcow2', digits=2),
        Spec(f'images.{op}.calls', f'system calls per {op} but KVM_RUN', 'calls', subject='hako qcow2', digits=3, steady=True,
             promises=((None, '<=', 0.2),)))),
    *(spec for form in ('raw', 'qcow2') for op in ('read', 'write') for spec in (
        Spec(f'images.bench.{op}.{form}', f'img bench, {op}s of 4 KiB, {form}, cached', 'thousand/s', better='higher',
             promises=(('qemu-img', '>=', 1.2),)),
        Spec(f'images.bench.{op}.{form}.cpu', f'CPU time per {op} of img bench, {form}', 'us', digits=2))),
    Spec('images.bench.allocate', 'img bench, writes of 64 KiB into an empty qcow2', 'thousand/s', better='higher',
         promises=(('qemu-img', '>=', 1.5),)),
    Spec('images.bench.chain', f'img bench, reads of 4 KiB through {CHAIN} overlays', 'thousand/s', better='higher',
         promises=(('qemu-img', '>=', 1.5),)),
    *(spec for name, (factor, _) in CONVERSIONS.items() for spec in (
        Spec(f'images.convert.{name}', f'img convert, 1 GiB half empty, qcow2 to {name}', 'ms', promises=(('qemu-img', '<=', factor),)),
        Spec(f'images.convert.{name}.cpu', f'CPU time of img convert, qcow2 to {name}', 'ms'))),
    Spec('images.open', 'hako io, opening and closing a qcow2 image, whole process', 'ms', subject='1 TiB', digits=2),
    Spec('images.open.peak', 'the same, peak of memory', 'MiB', subject='1 TiB', digits=2),
    Spec('images.open.more', 'opening an image of 1 TiB, beyond one of 1 GiB', 'ms', digits=2, promises=((None, '<=', 2),)),
    Spec('images.open.memory', 'the same, peak of memory', 'MiB', digits=2, promises=((None, '<=', 2),), steady=True),
)


def call(*command):
    """Run a program, which is expected to succeed: its output."""
    p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       text=True, timeout=600, check=False)
    if p.returncode:
        raise Failure(f'{" ".join(command)}: {p.stdout.strip()}')
    return p.stdout


def tool(a, who):
    """The command line's beginning."""
    return [a.hako, 'img'] if who == 'hako' else [PROGRAMS['qemu-img']]


def maker(a):
    """The tool that makes the images: the other one, if it is there."""
    return tool(a, 'qemu-img' if PROGRAMS['qemu-img'] else 'hako')


class Used:
    """A program from start to end: wall clock and CPU time in ms, peak of memory in MiB."""

    def __init__(self, command):
        begin = time.perf_counter()
        with open(os.devnull, 'r+b') as null, tempfile.TemporaryFile() as said:
            p = subprocess.Popen(command, stdin=null, stdout=null, stderr=said)  # pylint: disable=consider-using-with
            _, code, usage = os.wait4(p.pid, 0)
            p.returncode = os.waitstatus_to_exitcode(code)
            self.wall = (time.perf_counter() - begin) * 1e3
            self.cpu = (usage.ru_utime + usage.ru_stime) * 1e3
            self.peak = usage.ru_maxrss / 1024
            if p.returncode:
                said.seek(0)
                raise Failure(f'{" ".join(command)}: {said.read().decode(errors="replace").strip()}')


def in_turn(rounds, names, measure):
    """Call measure(name) for all names in every round, each time in another order."""
    for i in range(rounds):
        for name in rotated(present(names), i):
            measure(name)


# --- the guest's driver ----------------------------------------------------------------------


def guests(a, progress, scratch, seconds, rounds, found):
    """
    Requests per second of a guest on a qcow2 image all of whose clusters are there, and on the same bytes of the same file as a raw
    image: where the kernel has put a file's pages makes a tenth of a difference by itself.
    """
    text = os.path.join(scratch, 'text')
    image = os.path.join(scratch, 'guest.qcow2')
    call(*maker(a), 'convert', '-f', 'raw', '-O', 'qcow2', '-S', '0', a.disk, image + '.made')
    # Copied: ext4 writes slower to what is in the page cache in large pieces, as qemu-img leaves it.
    shutil.copyfile(image + '.made', image)
    os.unlink(image + '.made')
    one, = json.loads(call(*maker(a), 'map', '-f', 'qcow2', '--output=json', image))
    node = {'qcow2': 'format=qcow2', 'raw': f'format=raw,offset={one["offset"]},size={one["length"]}'}
    names = present(['hako qcow2', 'hako raw', 'QEMU qcow2', 'QEMU raw'])
    before = start.cpu_before(a, names)
    for op in ('read', 'write'):
        def command(who, op=op):
            vmm, form = who.split()
            line = (disk.hako if vmm == 'hako' else disk.qemu)(
                argless(a, image), 'micro' if vmm == 'hako' else 'microvm', False, seconds, text, f' op=rand{op}')
            return [x.replace('format=raw', node[form]) for x in line]

        def measure(who, op=op, command=command):
            progress.say(f'{op}, {who}')
            # The host may have taken back pages of a file that was not read for some seconds.
            disk.warm(image)
            r = disk.guest_result(command(who), text)
            found[f'images.{op}'].add(who, int(r['iops']) / 1e3)
            found[f'images.{op}.cpu'].add(who, (r['cpu'] - before[who]) * 1e6 / disk.all_requests(r, seconds))

        in_turn(rounds, names, measure)
        for who in names:
            value = disk.calls_per_request(command(who), text, seconds)
            if value is not None:
                found[f'images.{op}.calls'].add(who, value)
    os.unlink(image)


class argless:  # pylint: disable=invalid-name,too-few-public-methods
    """The options with another disk."""

    def __init__(self, a, path):
        self.__dict__.update(vars(a), disk=path)


# --- img bench -------------------------------------------------------------------------------


def bench(a, who, count, path, form, *more):
    """Thousands of requests per second of `img bench`, and CPU time in us for each."""
    before = disk.cpu_time()
    out = call(*tool(a, who), 'bench', '-c', str(count), '-d', '32', '-i', 'io_uring', '-f', form, *more, path)
    taken = re.search(r'Run completed in ([\d.]+) seconds', out)
    if not taken or not float(taken.group(1)):
        raise Failure(f'{who} bench: {out.strip()}')
    return count / float(taken.group(1)) / 1e3, (disk.cpu_time() - before) * 1e6 / count


def benches(a, progress, scratch, quick, rounds, found):
    """4 KiB requests to full images, allocating writes, a chain of overlays."""
    count = (1 if quick else 4) * 65536
    full = {form: os.path.join(scratch, f'full.{form}') for form in ('raw', 'qcow2')}
    call(*maker(a), 'convert', '-f', 'raw', '-O', 'qcow2', '-S', '0', a.disk, full['qcow2'])
    shutil.copyfile(a.disk, full['raw'])
    for form, path in full.items():
        for op, options in ('read', ()), ('write', ('-w',)):
            def measure(who, name=f'images.bench.{op}.{form}', form=form, path=path, options=options):
                progress.say(f'{name}: {who}')
                disk.warm(path)
                rate, cpu = bench(a, who, count, path, form, '-s', '4096', '-S', '4096', '-t', 'writeback', *options)
                found[name].add(who, rate)
                found[name + '.cpu'].add(who, cpu)

            in_turn(rounds, TOOLS, measure)
        os.unlink(path)

    def allocate(who):
        progress.say(f'images.bench.allocate: {who}')
        path = os.path.join(scratch, 'empty.qcow2')
        call(*maker(a), 'create', '-q', '-f', 'qcow2', path, str(SIZE))
        count = SIZE // 65536 // (4 if quick else 1)
        found['images.bench.allocate'].add(who, bench(a, who, count, path, 'qcow2', '-w', '-s', '65536', '-t', 'writeback')[0])
        os.unlink(path)

    in_turn(rounds, TOOLS, allocate)
    top = chain(a, scratch)

    def through(who):
        progress.say(f'images.bench.chain: {who}')
        found['images.bench.chain'].add(who, bench(a, who, count, top, 'qcow2', '-s', '4096', '-S', '4096', '-t', 'writeback')[0])

    in_turn(rounds, TOOLS, through)


def chain(a, scratch):
    """A chain of overlays, each of which has every ninth cluster: the path of the topmost."""
    below, form = a.disk, 'raw'
    for i in range(CHAIN):
        path = os.path.join(scratch, f'chain{i}.qcow2')
        call(*maker(a), 'create', '-q', '-f', 'qcow2', '-b', below, '-F', form, path)
        writes = [f'write -q -P {i + 1} {offset} 64k' for offset in range(i << 16, 64 << 20, (CHAIN + 1) << 16)]
        call(a.hako, 'io', '-f', 'qcow2', '-t', 'writeback', *[x for w in writes for x in ('-c', w)], path)
        below, form = path, 'qcow2'
    return below


# --- conversion ------------------------------------------------------------------------------


def half_empty(a, path):
    """An image of 1 GiB, every other MiB of which is data that can be compressed by half or so."""
    with open(a.disk, 'rb') as noise, open(path, 'wb') as f:
        f.truncate(SIZE)
        for mib in range(0, SIZE >> 20, 2):
            block = noise.read(1 << 19)
            f.seek(mib << 20)
            f.write(b''.join(block[i:i + 4096] + bytes(4096) for i in range(0, 1 << 19, 4096)))


def conversions(a, progress, scratch, rounds, found):
    """hako img convert beside qemu-img convert."""
    raw, source, target = (os.path.join(scratch, x) for x in ('half.raw', 'half.qcow2', 'target'))
    half_empty(a, raw)
    call(*maker(a), 'convert', '-f', 'raw', '-O', 'qcow2', raw, source)
    os.unlink(raw)
    for name, (_, options) in CONVERSIONS.items():
        def measure(who, name='images.convert.' + name, options=options):
            progress.say(f'{name}: {who}')
            used = Used([*tool(a, who), 'convert', '-f', 'qcow2', *options, source, target])
            found[name].add(who, used.wall)
            found[name + '.cpu'].add(who, used.cpu)
            os.unlink(target)

        in_turn(rounds, TOOLS, measure)
    os.unlink(source)


# --- opening ---------------------------------------------------------------------------------


def opening(a, progress, scratch, rounds, found):
    """Opening and closing images of 1 GiB and of 1 TiB whose first TiB has its tables."""
    paths = {}
    for name, size in ('1 GiB', '1G'), ('1 TiB', '1T'):
        paths[name] = os.path.join(scratch, f'{size}.qcow2')
        call(*maker(a), 'create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', paths[name], size)
    wall, peak = found['images.open'], found['images.open.peak']

    def measure(name):
        progress.say(f'opening an image of {name}')
        used = Used([a.hako, 'io', '-f', 'qcow2', '-c', 'read -q 0 4k', paths[name]])
        wall.add(name, used.wall)
        peak.add(name, used.peak)

    in_turn(rounds * 5, list(paths), measure)
    found['images.open.more'].add('hako', wall.median('1 TiB') - wall.median('1 GiB'))
    found['images.open.memory'].add('hako', peak.median('1 TiB') - peak.median('1 GiB'))
    for path in paths.values():
        os.unlink(path)


def run(a, progress):
    """The metrics."""
    found = metrics(METRICS)
    rounds = 2 if a.quick else 5
    with tempfile.TemporaryDirectory(prefix='images-', dir=os.path.dirname(a.disk)) as scratch:
        guests(a, progress, scratch, 1 if a.quick else 2, rounds, found)
        benches(a, progress, scratch, a.quick, rounds, found)
        conversions(a, progress, scratch, rounds, found)
        opening(a, progress, scratch, rounds, found)
    return found
