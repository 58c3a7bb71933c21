# SPDX-License-Identifier: GPL-2.0-only
"""What all benchmarks share: programs timed in turn, medians, and the table."""
import os
import re
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
QEMU = os.environ.get('QEMU') or 'qemu-system-x86_64'
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


class Metric:
    """
    One quantity, of several programs, in rounds. `subject` is hako; `promises` is a list of (name of another,
    '<=' or '>=', factor): what the subject's median is to be, in terms of the other's, or with the name
    None, as an absolute number.
    """

    def __init__(self, name, unit, subject='hako', promises=(), digits=1):
        self.name, self.unit, self.subject, self.digits = name, unit, subject, digits
        self.promises = list(promises)
        self.samples, self.notes = {}, {}

    def add(self, who, value):
        """One round's value."""
        self.samples.setdefault(who, []).append(value)

    def median(self, who):
        """The median of all rounds."""
        return statistics.median(self.samples[who])

    def ratio(self, who):
        """The subject's median in terms of another's."""
        if who == self.subject or self.subject not in self.samples or not self.median(who):
            return None
        return self.median(self.subject) / self.median(who)

    def promised(self, who):
        """What is promised of the subject and this other one: (text, whether it is kept), or None."""
        for other, relation, limit in self.promises:
            if other is None and who == self.subject:
                value, text = self.median(who), f'{limit:g} {self.unit}'
            elif other == who and self.ratio(who) is not None:
                value, text = self.ratio(who), f'{limit:g} x'
            else:
                continue
            kept = value <= limit if relation == '<=' else value >= limit
            return f'{relation} {text}', kept
        return None

    def as_json(self):
        """For --json."""
        rows = {}
        for who, values in self.samples.items():
            rows[who] = {'samples': values, 'median': self.median(who), 'ratio': self.ratio(who)}
            promise = self.promised(who)
            if promise:
                rows[who].update(promised=promise[0], kept=promise[1])
            if who in self.notes:
                rows[who]['note'] = self.notes[who]
        return {'name': self.name, 'unit': self.unit, 'rows': rows}

    def show(self, out=sys.stdout):
        """Print the metric's part of the table."""
        print(f'{self.name}, {self.unit}', file=out)
        for who, values in self.samples.items():
            low, high = quartiles(values)
            spread = f'{low:.{self.digits}f} .. {high:.{self.digits}f}' if len(values) > 1 else ''
            ratio, promise = self.ratio(who), self.promised(who)
            text = f'  {who:<30}{self.median(who):>10.{self.digits}f}  {spread:<20}'
            text += f'{ratio:>8.2f} x' if ratio is not None else ' ' * 10
            if promise:
                text += f'  {promise[0]:<11} {"kept" if promise[1] else "not kept"}'
            if who in self.notes:
                text += f'  ({self.notes[who]})'
            print(text.rstrip(), file=out)
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


# --- command lines ---------------------------------------------------------------------------


def qemu_cpu():
    """The host's CPU; kvm_pvm does not have an MSR that QEMU would set."""
    return 'host,-arch-capabilities' if os.path.exists('/sys/module/kvm_pvm') else 'host'


def qemu_base(machine_type, memory=128):
    """QEMU without anything that is not asked for."""
    return [QEMU, '-nodefaults', '-no-user-config', '-display', 'none', '-machine', machine_type,
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
    qemu = re.search(r'version (\S+)', first_line([QEMU, '--version']) or '')
    return {
        'cpu': model.group(1).strip() if model else 'unknown', 'cpus': os.cpu_count(),
        'memory_mib': os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') >> 20,
        'kernel': os.uname().release, 'kvm': ', '.join('kvm_' + k for k in kinds) or 'unknown',
        'hako': first_line([hako, '--version']), 'qemu': qemu.group(1) if qemu else None,
        'fio': first_line(['fio', '--version']), 'load': os.getloadavg()[0],
    }


def machine_line(m):
    """The same on one line."""
    return (f'{m["cpu"]}, {m["cpus"]} CPUs, {m["memory_mib"] / 1024:.0f} GiB; Linux {m["kernel"]}, {m["kvm"]}; '
            f'{m["hako"]}, QEMU {m["qemu"]}, {m["fio"]}; load {m["load"]:.1f}')
