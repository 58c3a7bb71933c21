# SPDX-License-Identifier: GPL-2.0-only
"""Stock guests for the lab's tests: what to boot, how to start it, and what it says."""
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
MODULES = ('virtio_pci virtio_mmio virtio_blk virtio_net virtio_console virtio_rng ext4 button evdev '
           'qemu_fw_cfg 8021q virtio_balloon vmw_vsock_virtio_transport')
# What the kernel says when time runs unevenly, as it does on busy or emulated processors.
UNEVEN = re.compile(r'hpet: Lost \d+ RTC interrupts|clocksource: |TSC found unstable|'
                    r'perf: interrupt took too long|Unstable clock detected|trace_clock=local|^on the kernel command line|'
                    r'If you want to keep using the local clock|hrtimer: interrupt took|workqueue: .* hogged CPU')
FLAVOURS = {'cloud': 'cloud-amd64', 'amd64': 'amd64'}


class Failure(Exception):
    """A test that failed, and why."""


class Timeout(Failure):
    """A guest has not said in time what was waited for."""


class Skip(Exception):
    """A test that cannot be run here, and why."""


def _tool(*args):
    p = subprocess.run([os.path.join(HERE, args[0]), *args[1:]], stdout=subprocess.PIPE,
                       stdin=subprocess.DEVNULL, check=False, text=True)
    if p.returncode:
        raise OSError(f'{args[0]} failed')
    return p.stdout.strip()


def pieces(names=tuple(FLAVOURS), tools=True):
    """Make or find what the guests with these kernels boot from: a dictionary of paths, for Pieces."""
    found = {}
    for name in names:
        directory = _tool('kernels', FLAVOURS[name]).split(' ', 1)[1]
        found[f'kernel-{name}'] = os.path.join(directory, 'vmlinuz')
        found[f'initrd-{name}'] = _tool(
            'mkinitramfs', '--kernel', directory, '--init', os.path.join(HERE, 'guest-init'),
            '--modules', MODULES, '--file', f'bin/off={HERE}/guest-off',
            '--file', f'bin/lease={HERE}/guest-lease')
    for name in ('root', 'tools', 'debian', 'packages') if tools else ('root',):
        found[name] = _tool('mkroot', name)
    return found


def free_port():
    """A TCP port that was free a moment ago."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Disk:
    """An image and how it is attached."""

    def __init__(self, path, serial='', readonly=False, options='', form='raw'):
        self.path, self.serial, self.readonly, self.form = path, serial, readonly, form
        self.options = options  # of hako alone, each with a comma before it


class Net:
    """A network card; kind is user, tap or (hako) stream. Vhost is of taps: on, off; and so is queues, the number of queue pairs."""

    def __init__(self, kind, mac, tap='', forward=0, vhost='', queues=1, options=''):
        self.kind, self.mac, self.tap, self.forward = kind, mac, tap, forward
        self.vhost, self.queues = vhost, queues
        self.options = options  # of hako alone, each with a comma before it


class Spec:
    """A guest, the same for every VMM."""

    def __init__(self, kernel, initrd, board='q35', cpus=1, memory=256, steps=(), append='',
                 disks=(), nets=(), rng=False, reboot=True, root=True, options=(), cpu=None, program=None, numa=(),
                 distances=(), vsock=None):
        self.options = list(options)  # of hako alone
        self.program = program  # hako's, if it is not the one that is tested by default
        self.cpu = cpu
        self.numa = list(numa)  # of each node its CPUs (or '') and MiB
        self.distances = list(distances)  # from, to, how far
        self.vsock = vsock  # the guest's CID, and a path if it is not the host's kernel that serves it
        self.kernel, self.initrd, self.board = kernel, initrd, board
        self.cpus, self.memory, self.steps = cpus, memory, list(steps)
        self.disks, self.nets, self.rng, self.reboot = list(disks), list(nets), rng, reboot
        words = ['console=ttyS0', 'quiet', 'panic=-1', 'net.ifnames=0', append]
        if root and self.disks:
            words.append('root=/dev/vda')
        words += [f'hako.step={s}' for s in steps]
        self.append = ' '.join(w for w in words if w)


def hako_command(spec):
    """The command line of hako."""
    program = spec.program or os.environ.get('HAKO') or os.path.join(TOP, 'build', 'hako')
    args = [program, 'run', '--kernel', spec.kernel, '--initrd', spec.initrd,
            '--append', spec.append, '--memory', f'{spec.memory}M', '--cpus', str(spec.cpus),
            '--machine', spec.board, '--console', 'stdio', '--log', 'stderr']
    for d in spec.disks:
        args += ['--disk', f'{d.path},format={d.form}' + (f',serial={d.serial}' if d.serial else '') +
                 (',read-only=on' if d.readonly else ',discard=unmap') + d.options]
    for n in spec.nets:
        if n.kind == 'tap':
            args += ['--net', f'tap,ifname={n.tap},mac={n.mac},queues={n.queues}' +
                     (f',vhost={n.vhost}' if n.vhost else '') + n.options]
        elif n.kind == 'stream':
            args += ['--net', f'stream,mac={n.mac}{n.options}']
        else:
            forward = f',hostfwd=tcp:127.0.0.1:{n.forward}-:80' if n.forward else ''
            args += ['--net', f'user,mac={n.mac}{forward}']
    if not spec.nets:
        args += ['--net', 'none']
    if spec.rng:
        args += ['--device', 'virtio-rng']
    if not spec.reboot:
        args += ['--no-reboot']
    if spec.cpu:
        args += ['--cpu', spec.cpu]
    for cpus, size in spec.numa:
        args += ['--numa', f'node,memory={size}M' + (f',cpus={cpus}' if cpus else '')]
    for src, dst, val in spec.distances:
        args += ['--numa', f'dist,src={src},dst={dst},val={val}']
    if spec.vsock:
        cid, path = spec.vsock
        args += ['--vsock', f'{cid},backend=unix,path={path}' if path else f'{cid},backend=vhost']
    return args + spec.options


def qemu_command(spec):
    """The command line of QEMU for the same guest."""
    micro = spec.board == 'micro'
    bus = 'device' if micro else 'pci'
    args = ['qemu-system-x86_64', '-nodefaults', '-no-user-config', '-display', 'none',
            '-accel', 'kvm', '-cpu', spec.cpu or 'host', '-machine', 'microvm,acpi=on' if micro else 'q35',
            '-m', str(spec.memory), '-smp', str(spec.cpus), '-kernel', spec.kernel,
            '-initrd', spec.initrd, '-append', spec.append, '-serial', 'stdio']
    for i, d in enumerate(spec.disks):
        args += ['-drive', f'file={d.path},format={d.form},if=none,id=d{i},read-only=' +
                 ('on' if d.readonly else 'off') + ',discard=unmap',
                 '-device', f'virtio-blk-{bus},drive=d{i},serial={d.serial}']
    for i, n in enumerate(spec.nets):
        if n.kind == 'tap':
            args += ['-netdev', f'tap,id=n{i},ifname={n.tap},script=no,downscript=no,queues={n.queues}' +
                     (f',vhost={n.vhost}' if n.vhost else '')]
        else:
            forward = f',hostfwd=tcp:127.0.0.1:{n.forward}-:80' if n.forward else ''
            args += ['-netdev', f'user,id=n{i}{forward}']
        args += ['-device', f'virtio-net-{bus},netdev=n{i},mac={n.mac}' +
                 ('' if micro else ',romfile=') +
                 (f',mq=on,vectors={2 * n.queues + 2}' if n.queues > 1 and not micro else '')]
    if spec.rng:
        args += ['-device', f'virtio-rng-{bus}']
    for i, (cpus, size) in enumerate(spec.numa):
        args += ['-object', f'memory-backend-ram,id=m{i},size={size}M',
                 '-numa', f'node,nodeid={i},memdev=m{i}' + (f',cpus={cpus}' if cpus else '')]
    for src, dst, val in spec.distances:
        args += ['-numa', f'dist,src={src},dst={dst},val={val}']
    if spec.vsock:
        args += ['-device', f'vhost-vsock-{bus},guest-cid={spec.vsock[0]}']
    if not spec.reboot:
        args += ['-no-reboot']
    return args


def holder_command(spec):
    """hako's library, held by a program that does what is asked for on a socket, whose number comes first."""
    args = hako_command(spec)[2:]
    at = args.index('--log')
    return [os.path.join(HERE, 'holder')] + args[:at] + args[at + 2:]


COMMANDS = {'hako': hako_command, 'qemu': qemu_command, 'libhako': holder_command}


class Guest:
    """A running VMM and the console of its guest. A context: leaving it kills what still runs."""

    def __init__(self, spec, vmm='hako', stdin=None):
        self.spec, self.vmm = spec, vmm
        self.console = b''
        self.seen = 0
        self.errors = tempfile.TemporaryFile()
        self.started = time.monotonic()
        command, fds, self.monitor = COMMANDS[vmm](spec), [], None
        if vmm != 'hako':
            self.monitor, far = socket.socketpair()
            fds = [far.fileno()]
        if vmm == 'libhako':
            command.insert(1, str(fds[0]))
        elif vmm == 'qemu':
            command += ['-chardev', f'socket,id=monitor,fd={fds[0]}', '-mon', 'chardev=monitor']
        self.keys = -1
        if 'shell' in spec.steps and not stdin:
            stdin, self.keys = os.pipe()
        self.process = subprocess.Popen(command, stdin=stdin or subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.errors,
                                        start_new_session=True, pass_fds=fds)
        if self.keys >= 0:
            os.close(stdin)
        if self.monitor:
            far.close()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        if self.keys >= 0:
            os.close(self.keys)
        self.errors.close()
        if self.monitor:
            self.monitor.close()

    def press_power(self):
        """Press the power button in the VMM's own way."""
        if self.monitor:
            self.monitor.sendall(b'system_powerdown\n')
        else:
            self.process.terminate()

    def _more(self, deadline):
        """Read more of the console: false at its end."""
        left = deadline - time.monotonic()
        fd = self.process.stdout.fileno()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise Timeout(f'timeout after {time.monotonic() - self.started:.0f} s; {self.tail()}')
        data = os.read(fd, 1 << 16)
        self.console += data
        return bool(data)

    def tail(self):
        """The end of console and errors, on one line."""
        self.errors.seek(0)
        errors = self.errors.read()[-300:].decode(errors='replace').strip()
        text = self.console[-400:].decode(errors='replace').strip()
        return re.sub(r'[\r\n]+', ' | ', f'console: …{text}' + (f' errors: {errors}' if errors else ''))

    def expect(self, pattern, timeout=120):
        """Wait for a line that matches, after those already seen; the match."""
        deadline = time.monotonic() + timeout
        compiled = re.compile(pattern.encode() + rb'[^\r\n]*[\r\n]')
        while True:
            match = compiled.search(self.console, self.seen)
            if match:
                self.seen = match.end()
                return match.group().decode(errors='replace').strip()
            if not self._more(deadline):
                raise Failure(f'the console ended before "{pattern}"; exit status '
                              f'{self.process.wait()}; {self.tail()}')

    def run(self, command, timeout=120):
        """Run a command in the guest's shell step: (status, output)."""
        os.write(self.keys, command.encode() + b'\n')
        start = self.seen
        status = int(self.expect(r'@\. \d+', timeout).split()[1])
        text = self.console[start:self.seen].decode(errors='replace')
        return status, '\n'.join(re.findall(r'^@= ([^\r\n]*)', text, re.M))

    def finish(self, timeout=120):
        """Wait for the end of the VMM: its exit status."""
        deadline = time.monotonic() + timeout
        while self._more(deadline):
            pass
        try:
            return self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise Timeout(f'console closed, but the process stays; {self.tail()}') from None

    def results(self):
        """What the steps said: a list of (name, passed, detail)."""
        text = self.console.decode(errors='replace')
        found = re.findall(r'^@@ ([a-z]+) (ok|fail)\b ?([^\r\n]*)', text, re.M)
        return [(name, word == 'ok', detail) for name, word, detail in found]

    def warnings(self):
        """The kernel's warnings that the dmesg step printed, without what differs between boots."""
        text = self.console.decode(errors='replace')
        lines = re.findall(r'^@w <\d+>\[ *[\d.]+\] ?([^\r\n]*)', text, re.M)
        return [re.sub(r'0x[0-9a-f]+|\b[0-9a-f]{8,16}\b|\d+', '#', line) for line in lines
                if not UNEVEN.search(line)]


class Pieces:
    """Paths of the parts, and copies of the disks that may be written."""

    def __init__(self, paths, scratch):
        self.paths, self.scratch = paths, scratch
        self.count = 0

    def root(self, name):
        """A fresh copy of the root image."""
        path = os.path.join(self.scratch, f'{name}.ext4')
        subprocess.run(['cp', '--sparse=always', self.paths['root'], path], check=True)
        os.chmod(path, 0o644)
        return path

    def blank(self, name, size):
        """A new empty image."""
        path = os.path.join(self.scratch, f'{name}.raw')
        with open(path, 'wb') as f:
            f.truncate(size)
        return path

    def tools(self):
        """The image with programs, in memory, shared by all guests."""
        path = os.path.join(self.scratch, 'tools.ext4')
        if not os.path.exists(path):
            tmp = f'{path}.{os.getpid()}'
            shutil.copyfile(self.paths['tools'], tmp)
            os.replace(tmp, path)
        return path
