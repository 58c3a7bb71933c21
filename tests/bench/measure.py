# SPDX-License-Identifier: GPL-2.0-only
"""What all benchmarks share: programs timed in turn, medians, and the table."""
import dataclasses
import datetime
import os
import re
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
PEERS = 'QEMU', 'qemu-img'  # what the columns of the other VMM and of its tool begin with
PROGRAMS = {  # the first word of a column's name, and what is run then; None where there is none
    'QEMU': os.environ.get('QEMU') or 'qemu-system-x86_64', 'qemu-img': os.environ.get('QEMU_IMG') or 'qemu-img',
    'fio': 'fio',
}
DEBUG_EXIT = ['--device', 'isa-debug-exit,iobase=0xf4,iosize=4']


class Failure(Exception):
    """Something could not be measured, and why."""


class Progress:
    """One line on a terminal, which is gone at the end; nothing elsewhere."""

    def __init__(self):
        self.shown = sys.stderr.isatty()

    def say(self, text):
        """Show what is done now."""
        if self.shown:
            sys.stderr.write(f'\r\x1b[K{text[:100]}')
            sys.stderr.flush()

    def clear(self):
        """Remove the line."""
        self.say('')


@dataclasses.dataclass(frozen=True)
class Spec:  # pylint: disable=too-many-instance-attributes
    """
    What a metric is, before anything is measured. `promises` is a list of (name of another, '<=' or '>=', factor): what
    the subject's median is to be, in terms of the other's, or with the name None, as an absolute number.
    """
    name: str  # PART.WHAT, which never changes: it is what --json, compare and docs/performance.md go by
    title: str
    unit: str
    promises: tuple = ()
    better: str = 'lower'
    subject: str = 'hako'
    limit: str = None  # the one that does the same without a guest or a VMM
    steady: bool = False  # a count or a size: the same on a fast and on a slow machine
    digits: int = 1


class Metric:
    """One quantity, of several programs, in rounds. The spec's subject is hako."""

    def __init__(self, spec):
        self.spec, self.name, self.subject = spec, spec.name, spec.subject
        self.samples = {}

    def add(self, who, value):
        """One round's value."""
        self.samples.setdefault(who, []).append(value)

    def median(self, who):
        """The median of all rounds."""
        return statistics.median(self.samples[who])

    def ratio(self, who):
        """The subject's median in terms of another's."""
        if who == self.subject or self.subject not in self.samples or who not in self.samples or not self.median(who):
            return None
        return self.median(self.subject) / self.median(who)

    def best_peer(self):
        """The other VMM (or tool) that does best, or None."""
        peers = [who for who in self.samples if who.startswith(PEERS) and self.median(who)]
        return (min if self.spec.better == 'lower' else max)(peers, key=self.median, default=None)

    def promised(self, who):
        """What is promised of the subject and this other one: (text, whether it is kept), or None."""
        for other, relation, limit in self.spec.promises:
            if other is None and who == self.subject:
                value, text = self.median(who), f'{limit:g} {self.spec.unit}'
            elif other == who and self.ratio(who) is not None:
                value, text = self.ratio(who), f'{limit:g} x'
            else:
                continue
            return f'{relation} {text}', value <= limit if relation == '<=' else value >= limit
        return None

    def as_json(self):
        """For --json: docs/performance.md has the schema."""
        rows = {}
        for who, values in self.samples.items():
            low, high = quartiles(values)
            rows[who] = {'samples': values, 'median': self.median(who), 'low': low, 'high': high, 'ratio': self.ratio(who)}
            promise = self.promised(who)
            if promise:
                rows[who].update(promised=promise[0], kept=promise[1])
        s, best = self.spec, self.best_peer()
        return {'name': s.name, 'title': s.title, 'unit': s.unit, 'better': s.better, 'steady': s.steady, 'subject': s.subject,
                'best_peer': best, 'to_best_peer': self.ratio(best), 'limit': s.limit, 'to_limit': self.ratio(s.limit),
                'digits': s.digits, 'promises': [list(p) for p in s.promises], 'rows': rows}


def metrics(specs):
    """A metric without values for each of a part's specs, by name."""
    return {s.name: Metric(s) for s in specs}


def show(m, out=sys.stdout):
    """Print a metric's part of the table, out of its JSON."""
    print(f'{m["title"]}, {m["unit"]} ({m["name"]})', file=out)
    for who, row in m['rows'].items():
        digits = m['digits']
        spread = f'{row["low"]:.{digits}f} .. {row["high"]:.{digits}f}' if len(row['samples']) > 1 else ''
        text = f'  {who:<30}{row["median"]:>10.{digits}f}  {spread:<20}'
        text += f'{row["ratio"]:>8.2f} x' if row['ratio'] is not None else ' ' * 10
        if 'promised' in row:
            text += f'  {row["promised"]:<11} {"kept" if row["kept"] else "not kept"}'
        print(text.rstrip(), file=out)
    parts = [f'{m["to_" + key]:.2f} of {what} ({m[key]})' for key, what in (('best_peer', 'the best peer'), ('limit', 'the limit'))
             if m['to_' + key] is not None]
    if parts:
        print(f'  {m["subject"]}: {", ".join(parts)}', file=out)
    print(flush=True, file=out)


def quartiles(values):
    """The middle half of the values."""
    if len(values) < 3:
        return min(values), max(values)
    q = statistics.quantiles(values, n=4, method='inclusive')
    return q[0], q[2]


class Timed:
    """A program from start to end: wall clock and CPU time in ms."""

    def __init__(self, command, status):
        null = os.open(os.devnull, os.O_RDWR)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
        begin = time.perf_counter()
        pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
        _, code, usage = os.wait4(pid, 0)
        self.wall = (time.perf_counter() - begin) * 1e3
        os.close(null)
        self.cpu = (usage.ru_utime + usage.ru_stime) * 1e3
        if os.waitstatus_to_exitcode(code) != status:
            raise Failure(f'exit status {os.waitstatus_to_exitcode(code)}, expected {status}: '
                          f'{" ".join(command)}')


def rotated(names, turn):
    """The names in another order each round, so that none is always after the same other."""
    names = list(names)
    turn %= len(names)
    return names[turn:] + names[:turn]


# --- who is there ----------------------------------------------------------------------------


def find_programs(peers):
    """Look for all programs to compare with. @peers: what the user named, "qemu=PATH"."""
    for peer in filter(None, peers.split(',')):
        name, _, path = peer.partition('=')
        if name != 'qemu' or not path:
            raise Failure(f'--peer {peer}: qemu=PATH is known')
        if not shutil.which(path):
            raise Failure(f'--peer {peer}: no such program')
        PROGRAMS['QEMU'] = path
        beside = os.path.join(os.path.dirname(path), 'qemu-img')
        if os.path.dirname(path) and os.access(beside, os.X_OK):
            PROGRAMS['qemu-img'] = beside
    for name, path in PROGRAMS.items():
        PROGRAMS[name] = shutil.which(path)


def present(who):
    """Those columns, of a list or dictionary, whose program is there."""
    names = [name for name in who if PROGRAMS.get(name.split()[0], True)]
    return {name: who[name] for name in names} if isinstance(who, dict) else names


# --- command lines ---------------------------------------------------------------------------


def qemu_cpu():
    """The host's CPU; kvm_pvm does not have an MSR that QEMU would set."""
    return 'host,-arch-capabilities' if os.path.exists('/sys/module/kvm_pvm') else 'host'


def qemu_base(machine_type, memory=128):
    """QEMU without anything that is not asked for."""
    return [PROGRAMS['QEMU'] or '', '-nodefaults', '-no-user-config', '-display', 'none', '-machine', machine_type,
            '-accel', 'kvm', '-cpu', qemu_cpu(), '-m', f'{memory}M',
            '-global', 'virtio-mmio.force-legacy=false',
            '-device', 'isa-debug-exit,iobase=0xf4,iosize=4', '-no-reboot']


def hako_base(hako, machine, memory=128):
    """hako without anything that is not asked for."""
    return [hako, 'run', '--machine', machine, '--memory', f'{memory}M', *DEBUG_EXIT, '--no-reboot']


# --- the machine -----------------------------------------------------------------------------


def first_line(command):
    """The first line that a program prints, or None."""
    try:
        p = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
                           stdin=subprocess.DEVNULL)
    except OSError:
        return None
    return p.stdout.splitlines()[0] if p.stdout else None


def machine(hako):
    """What was measured, on what: a dictionary."""
    with open('/proc/cpuinfo', encoding='utf-8') as f:
        model = re.search(r'model name\s*: (.*)', f.read())
    kinds = [k for k in ('intel', 'amd', 'pvm') if os.path.exists(f'/sys/module/kvm_{k}')]
    said = {name: first_line([path, '--version']) if path else None for name, path in PROGRAMS.items()}
    qemu = re.search(r'version (\S+)', said['QEMU'] or '')
    return {
        'cpu': model.group(1).strip() if model else 'unknown', 'cpus': os.cpu_count(),
        'memory_mib': os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20,
        'kernel': os.uname().release, 'kvm': ', '.join('kvm_' + k for k in kinds) or 'unknown',
        'hako': first_line([hako, '--version']), 'qemu': qemu.group(1) if qemu else None,
        'fio': said['fio'],
        'date': datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d %H:%M UTC'), 'load': os.getloadavg()[0],
    }


def machine_line(m):
    """The same on one line."""
    programs = [m['hako'], m['qemu'] and 'QEMU ' + m['qemu'], m['fio']]
    return (f'{m["cpu"]}, {m["cpus"]} CPUs, {m["memory_mib"] / 1024:.0f} GiB; Linux {m["kernel"]}, {m["kvm"]}; '
            f'{", ".join(filter(None, programs))}; load {m["load"]:.1f}; {m["date"]}')
