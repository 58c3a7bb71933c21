# SPDX-License-Identifier: GPL-2.0-only
"""
A load after SPECvirt_sc: a tile is six stock guests on a bridge of their own, with real Debian software (nginx, PostgreSQL,
dovecot, redis, xz) or nothing to do, loaded from outside at fixed rates. Tiles are added until one of their workloads is not
served as well as it has to be, or memory ends; both VMMs in turn, from the same image, in the lab where no stock kernel can
run here.
"""
import contextlib
import dataclasses
import glob
import json
import math
import os
import subprocess
import sys
import tempfile
import time

import memory
import tiles_image
from measure import HERE, PROGRAMS, TOP, Failure, Spec, metrics, present, rotated

LAB = os.path.join(TOP, 'tests', 'lab')
sys.path.insert(0, LAB)
import guest  # pylint: disable=wrong-import-position

MARK = '# bench '
KSM = '/sys/kernel/mm/ksm/'
TICK = os.sysconf('SC_CLK_TCK')
SPARE_MIB = 512  # what the host keeps beside another tile


@dataclasses.dataclass(frozen=True)
class Workload:
    """A guest of a tile, the operations that it is to serve, and how well: on real hardware, and in the lab."""
    what: str
    memory: int  # MiB of its guest
    rate: float  # operations a second
    limit: float  # 95 of 100 take no longer, ms
    lab_rate: float
    lab_limit: float


WORKLOADS = {
    'web': Workload('nginx, a static file', 128, 100, 50, 3, 4000),
    'database': Workload('PostgreSQL, a transaction of pgbench', 192, 30, 100, 0.5, 10000),
    'mail': Workload('dovecot, an IMAP session', 160, 5, 250, 0.1, 20000),
    'store': Workload('redis, a value of 4 KiB', 128, 100, 50, 3, 4000),
    'batch': Workload('xz, a job of 256 KiB', 96, 0.5, 2000, 0.05, 30000),
    'idle': Workload('a sign of life', 96, 1, 50, 0.5, 4000),  # from busybox's httpd
}
SERVED = 0.99  # of the operations have to be answered, and rightly
METRICS = (
    Spec('tiles.score', 'tiles that are served as they have to be', 'tiles', better='higher', digits=0, promises=(('QEMU', '>=', 1),)),
    Spec('tiles.up', 'a tile, from the start of its VMMs until all six services listen', 's'),
    *(Spec(f'tiles.rate.{name}', f'{w.what}: all tiles of the score', 'operations/s', better='higher', digits=2) for name, w in WORKLOADS.items()),
    *(Spec(f'tiles.time.{name}', f'{w.what}: 95th percentile with one tile', 'ms') for name, w in WORKLOADS.items()),
    *(Spec(f'tiles.full.{name}', f'{w.what}: 95th percentile with all tiles of the score', 'ms') for name, w in WORKLOADS.items()),
    Spec('tiles.cpu', "CPU time of a tile's VMMs, guests included", '% of a CPU'),
    Spec('tiles.memory', "memory of a tile's VMMs, guests included (PSS)", 'MiB', promises=(('QEMU', '<=', 1),)),
    Spec('tiles.beyond', "memory of a tile's six VMMs beyond guest RAM, private", 'MiB', steady=True, promises=((None, '<=', 24),)),
    Spec('tiles.shared', 'guest memory of a tile that KSM has merged', 'MiB', better='higher'),
)


# --- in the lab, or on a host that runs stock kernels ------------------------------------------


@dataclasses.dataclass
class Setup:  # pylint: disable=too-many-instance-attributes
    """What run() hands over."""
    kernel: str
    initrd: str
    image: str
    pgbench: list
    qemu: str
    hako: str
    vmms: list
    emulated: bool  # rates and limits are those of the lab
    limit: int  # tiles at most, or 0
    rounds: int
    warm: float  # s of load before what counts
    seconds: float  # s that count
    directory: str


def say(**result):
    """A line for run()."""
    print(MARK + json.dumps(result), flush=True)


def ksm(name):
    """One of KSM's numbers; 0 where there is none."""
    try:
        with open(KSM + name, encoding='ascii') as f:
            return int(f.read())
    except OSError:
        return 0


def available():
    """MiB that the host has for more."""
    with open('/proc/meminfo', encoding='ascii') as f:
        return next(int(line.split()[1]) for line in f if line.startswith('MemAvailable')) >> 10


def commands(setup):
    """Both VMMs' command lines for the same guest."""
    def hako(spec):
        spec.program = setup.hako
        args = guest.hako_command(spec)
        if ksm('run') == 1:  # QEMU lets KSM have guest RAM by default
            args[args.index('--memory') + 1] += ',merge=on'
        return args

    def qemu(spec):
        return [setup.qemu, *guest.qemu_command(spec)[1:]]

    return {'hako': hako, 'qemu': qemu}


class Tile:
    """Six guests, their bridge, and who loads them. A context."""

    def __init__(self, setup, network, vmm, index):
        self.setup, self.network, self.vmm, self.index = setup, network, vmm, index
        self.guests, self.undo = {}, contextlib.ExitStack()
        self.up = None

    def address(self, name):
        """Of a workload's guest."""
        return f'{self.network.net4}{list(WORKLOADS).index(name) + 11}'

    def spec(self, name, tap, overlay):
        """A workload's guest."""
        number = list(WORKLOADS).index(name)
        vhost = 'on' if os.path.exists('/dev/vhost-net') else 'off'
        return guest.Spec(self.setup.kernel, self.setup.initrd, 'q35', 1, WORKLOADS[name].memory, reboot=False,
                          append=f'tile.role={name} tile.address={self.address(name)}/24',
                          disks=[guest.Disk(overlay, form='qcow2')],
                          nets=[guest.Net('tap', f'52:54:00:{self.index:02x}:00:{number:02x}', tap=tap, vhost=vhost)])

    def __enter__(self):
        with self.undo:
            self.undo.enter_context(self.network)
            folder = self.undo.enter_context(tempfile.TemporaryDirectory(prefix='hako-tile-', dir=self.setup.directory))
            begin = time.monotonic()
            for name, tap in zip(WORKLOADS, self.network.taps):
                overlay = os.path.join(folder, name + '.qcow2')
                subprocess.run([self.setup.hako, 'img', 'create', '-q', '-f', 'qcow2', '-b', self.setup.image, '-F', 'raw', overlay], check=True)
                self.guests[name] = self.undo.enter_context(guest.Guest(self.spec(name, tap, overlay), self.vmm))
            for name, g in self.guests.items():
                if g.expect('@@ (up|down)', timeout=240).startswith('@@ down'):
                    raise guest.Failure(f'{name}: the service does not start: {g.tail()}')
            self.up = time.monotonic() - begin
            self.undo = self.undo.pop_all()
        return self

    def __exit__(self, *_exception):
        self.undo.close()

    def check(self):
        """Its VMMs are to run."""
        for name, g in self.guests.items():
            if g.process.poll() is not None:
                raise guest.Failure(f'{name}: {self.vmm} has ended with status {g.process.returncode}: {g.tail()}')

    def load(self, name, begin, seconds):
        """Start a workload's load."""
        w = WORKLOADS[name]
        job = {'kind': name, 'address': self.address(name), 'rate': w.lab_rate if self.setup.emulated else w.rate, 'begin': begin,
               'seconds': seconds, 'pgbench': self.setup.pgbench}
        return subprocess.Popen(self.network.command(sys.executable, os.path.join(HERE, 'tiles_load.py'), json.dumps(job)),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def cpu(self):
        """Seconds of CPU time that its VMMs have taken, with the kernel's vhost workers where those are no threads of them."""
        pids = [g.process.pid for g in self.guests.values()]
        paths, names = [f'/proc/{pid}/stat' for pid in pids], {f'vhost-{pid}' for pid in pids}
        for path in glob.glob('/proc/[0-9]*/comm'):
            with contextlib.suppress(OSError), open(path, encoding='utf-8', errors='replace') as f:
                if f.read().strip() in names:
                    paths.append(os.path.dirname(path) + '/stat')
        total = 0
        for path in paths:
            with open(path, encoding='utf-8', errors='replace') as f:
                total += sum(map(int, f.read().rsplit(')', 1)[1].split()[11:13]))
        return total / TICK

    def pss(self):
        """MiB of memory that its VMMs have, their part of what is shared."""
        total = 0
        for g in self.guests.values():
            with open(f'/proc/{g.process.pid}/smaps_rollup', encoding='ascii') as f:
                total += next(int(line.split()[1]) for line in f if line.startswith('Pss:'))
        return total / 1024

    def beyond(self):
        """MiB of private memory beyond guest RAM, or None where that can not be told."""
        found = [memory.private(g.process.pid, WORKLOADS[name].memory) for name, g in self.guests.items()]
        return None if None in found else sum(found) / 1024


def percentile(values, part):
    """The value that this part of them does not exceed."""
    return sorted(values)[math.ceil(part * len(values)) - 1]


def judge(setup, name, found, begin):
    """A workload's rate, 95th percentile and part served, out of the operations that were to begin in the time that counts."""
    w = WORKLOADS[name]
    counted = [x for x in found if begin <= x[0] < begin + setup.seconds]
    took = [x[1] * 1e3 for x in counted if not x[2]]
    result = {'rate': len(took) / setup.seconds, 'served': len(took) / len(counted) if counted else 0,
              'p95': percentile(took, 0.95) if took else None}
    limit, wanted = (w.lab_limit, w.lab_rate) if setup.emulated else (w.limit, w.rate)
    wrong = next((x[2] for x in counted if x[2]), 'no operation')
    if result['served'] < SERVED:
        result['failed'] = f'{result["served"]:.1%} of the operations are served, {SERVED:.0%} have to be: {wrong}'
    elif result['rate'] < wanted / 3:  # pgbench's times are drawn by pgbench, so the count is not known
        result['failed'] = f'{result["rate"]:g} operations a second of {wanted:g}'
    elif result['p95'] > limit:
        result['failed'] = f'95 of 100 take {result["p95"]:.0f} ms, {limit:g} ms are allowed'
    return result


def step(setup, tiles):
    """Load all tiles once: what came of it."""
    begin = time.monotonic() + (20 if setup.emulated else 2)  # until then the programs that load have started
    counts = begin + setup.warm
    jobs = {(i, name): t.load(name, begin, setup.warm + setup.seconds) for i, t in enumerate(tiles) for name in WORKLOADS}
    try:
        time.sleep(max(0, counts - time.monotonic()))
        cpu = -sum(t.cpu() for t in tiles)
        time.sleep(max(0, counts + setup.seconds - time.monotonic()))
        cpu += sum(t.cpu() for t in tiles)
        for t in tiles:
            t.check()
        beyond = [t.beyond() for t in tiles]
        result = {'tiles': len(tiles), 'up': tiles[-1].up, 'cpu': 100 * cpu / setup.seconds / len(tiles),
                  'memory': sum(t.pss() for t in tiles) / len(tiles),
                  'beyond': None if None in beyond else sum(beyond) / len(tiles),
                  'shared': ksm('pages_sharing') * os.sysconf('SC_PAGE_SIZE') / (1 << 20) / len(tiles) if ksm('run') == 1 else None,
                  'found': {name: [] for name in WORKLOADS}, 'failed': []}
        for (i, name), p in jobs.items():
            out, err = p.communicate(timeout=300)
            if p.returncode:
                raise Failure(f'{name}: {(err.strip().splitlines() or ["?"])[-1]}')
            found = judge(setup, name, json.loads(out), counts)
            result['found'][name].append(found)
            if 'failed' in found:
                result['failed'].append(f'tile {i + 1}, {name}: {found["failed"]}')
    finally:
        for p in jobs.values():
            if p.poll() is None:
                p.kill()
            p.communicate()
    return result


def staircase(setup, vmm, network):
    """Add tiles until one fails: a result for each number of them, and why there are no more."""
    wanted = sum(w.memory for w in WORKLOADS.values()) + SPARE_MIB
    with contextlib.ExitStack() as stack:
        tiles = []
        while not setup.limit or len(tiles) < setup.limit:
            if available() < wanted:
                return f'{available()} MiB of memory are left, a tile may take {wanted}'
            for last in (False, True) if setup.emulated else (True,):
                # Of a hundred boots in the lab one hangs, with either VMM (tests/lab/README.md).
                try:
                    tiles.append(stack.enter_context(Tile(setup, network(len(tiles)), vmm, len(tiles))))
                    break
                except guest.Timeout as e:
                    if last:
                        return f'tile {len(tiles) + 1} does not come up: {e}'
            result = step(setup, tiles)
            say(vmm=vmm, **result)
            if result['failed']:
                return '; '.join(result['failed'])
        return f'--tiles {setup.limit}'


def inside(path):
    """In the lab, or directly: each result is a line of JSON."""
    import test_net  # pylint: disable=import-outside-toplevel
    with open(path, encoding='utf-8') as f:
        setup = Setup(**json.load(f))
    guest.COMMANDS.update(commands(setup))
    # What both need comes into the page cache, for the first as for the other.
    with open(setup.image, 'rb') as f:
        while f.read(1 << 20):
            pass
    for command in [sys.executable, os.path.join(HERE, 'tiles_load.py'), '{"kind": "idle", "address": "", "rate": 1, "seconds": 0, "begin": 0}'], [*setup.pgbench, '--version']:
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    for i in range(setup.rounds):
        for vmm in rotated(setup.vmms, i):
            try:
                say(vmm=vmm, end=staircase(setup, vmm, lambda n: test_net.Network(n, taps=len(WORKLOADS))))
            except (guest.Failure, guest.Skip, subprocess.SubprocessError) as e:
                raise Failure(f'{vmm}: {e}') from e


# --- the part ----------------------------------------------------------------------------------


def prepare(a, progress, emulated):
    """What the guests are made of, and how they are loaded."""
    image, pgbench = tiles_image.make(progress)
    pieces = guest.pieces(('cloud',), tools=False)
    return Setup(pieces['kernel-cloud'], pieces['initrd-cloud'], image, tiles_image.pgbench(pgbench), PROGRAMS['QEMU'] or '', a.hako,
                 ['hako', 'qemu'] if present(['QEMU']) else ['hako'], emulated, a.tiles, 1 if a.quick else 3,
                 warm=15 if a.quick else 30, seconds=40 if a.quick else 120, directory=os.path.dirname(a.disk))


def take(found, who, steps, why):
    """A staircase's results."""
    passed = [s for s in steps if not s['failed']]
    found['tiles.score'].add(who, len(passed))
    print(f'tiles: {who}: {len(passed)}, then: {why}', flush=True)
    if not steps:
        return
    found['tiles.up'].add(who, steps[0]['up'])
    for name, (first,) in steps[0]['found'].items():
        if first['p95'] is not None:
            found['tiles.time.' + name].add(who, first['p95'])
    if not passed:
        return
    for key in 'cpu', 'memory', 'beyond', 'shared':
        if passed[-1][key] is not None:
            found['tiles.' + key].add(who, passed[-1][key])
    for name, those in passed[-1]['found'].items():
        found['tiles.rate.' + name].add(who, sum(x['rate'] for x in those))
        found['tiles.full.' + name].add(who, max(x['p95'] for x in those))


def run(a, progress):
    """The metrics."""
    where = subprocess.run([os.path.join(LAB, 'run'), '--where'], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if where == 'direct' and os.geteuid():
        raise Failure('bridges, taps and namespaces for its guests are root\'s to make')
    found, steps = metrics(METRICS), []
    setup = prepare(a, progress, where == 'lab')
    progress.say('tiles: the guests start')
    with tempfile.NamedTemporaryFile('w', prefix='hako-bench-', encoding='utf-8') as f:
        json.dump(dataclasses.asdict(setup), f)
        f.flush()
        command = [os.path.join(LAB, 'run'), '--timeout', '14400', '--', sys.executable, os.path.join(HERE, 'run'), '--inside', 'tiles', f.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as p:
            for line in p.stdout:
                if not line.startswith(MARK):
                    continue
                r = json.loads(line[len(MARK):])
                who = 'hako' if r['vmm'] == 'hako' else 'QEMU'
                if 'end' in r:
                    progress.clear()
                    take(found, who, steps, r['end'])
                    steps = []
                else:
                    steps.append(r)
                    progress.say(f'tiles: {who}: {r["tiles"]}' + (': no' if r['failed'] else ''))
    if p.returncode:
        raise Failure(f'exit status {p.returncode}' + (' in the lab' if setup.emulated else ''))
    return found
