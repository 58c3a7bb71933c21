# SPDX-License-Identifier: GPL-2.0-only
"""The AppArmor profiles of tools/apparmor, in a kernel that has AppArmor, and hako run --seclabel."""
import os
import shutil
import subprocess

import guest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHIPPED = TOP + '/tools/apparmor'
INSTALLED = '/usr/local/bin/hako'
OWN = '/var/lib/hako'


def load_profile(text):
    subprocess.run(['apparmor_parser', '-r', '-K', '-I', '/etc/apparmor.d', '-I', SHIPPED], input=text, text=True, check=True)


def refused(lab, what, args, pattern):
    r = subprocess.run([INSTALLED, 'run', *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    lab.ok(what, r.returncode == 1 and pattern in r.stderr and r.stderr.count('\n') == 1, f'{r.returncode} {r.stderr!r}')


def runs(lab, label, kernel, initrd, disk, sandbox):
    """A guest boots, with a disk and a user network; each thread has the label, and seccomp's filter as ever."""
    spec = guest.Spec(kernel, initrd, 'q35', steps=['button'], disks=[guest.Disk(disk)], nets=[guest.Net('user', '52:54:00:12:34:56')], program=INSTALLED,
                      options=['--seclabel', label, '--sandbox', sandbox])
    with lab.start(spec) as g:
        g.expect('@@ waiting')
        base = f'/proc/{g.process.pid}/task'
        labels = {open(f'{base}/{t}/attr/apparmor/current', encoding='ascii').read().strip() for t in os.listdir(base)}
        lab.ok(f'{label}.{sandbox}.labelled', labels == {f'{label} (enforce)'}, f'{labels}')
        g.press_power()
        status = g.finish()
        lab.ok(f'{label}.{sandbox}.exit', status == 0, f'exit status {status}; {g.tail()}')


def app_armor(lab):
    """A profile of a VM's own: it gets the label and its files, and no others. Then the one for all."""
    if lab.vmm != 'hako':
        raise guest.Skip(f'{lab.vmm} has no such option')
    if not shutil.which('apparmor_parser'):
        raise guest.Skip('there is no apparmor_parser (tools/setup installs it)')
    if not os.path.exists('/sys/kernel/security/apparmor'):
        subprocess.run(['mount', '-t', 'securityfs', 'securityfs', '/sys/kernel/security'], check=False)
    if not os.path.exists('/sys/kernel/security/apparmor/profiles'):
        raise guest.Skip('the kernel has no AppArmor')
    if os.path.exists(INSTALLED) or os.path.exists(OWN):
        raise guest.Skip(f'{INSTALLED} or {OWN} is there already')
    os.makedirs(OWN)
    shutil.copy(guest.hako_command(guest.Spec('', '', 'q35'))[0], INSTALLED)
    kernel, initrd, disk, other = (f'{OWN}/{x}' for x in ('kernel', 'initrd', 'disk', 'other'))
    shutil.copy(lab.pieces.paths['kernel-cloud'], kernel)
    shutil.copy(lab.pieces.paths['initrd-cloud'], initrd)
    shutil.move(lab.pieces.root(lab.name), disk)
    shutil.copy(disk, other)
    try:
        load_profile('abi <abi/3.0>,\ninclude <tunables/global>\nprofile hako-one flags=(attach_disconnected) {\n  include <abstractions/hako>\n'
                     f'  {kernel} r,\n  {initrd} r,\n  {disk} rwk,\n}}\n')
        load_profile(open(SHIPPED + '/hako', encoding='utf-8').read())
        runs(lab, 'hako-one', kernel, initrd, disk, 'strict')
        runs(lab, 'hako', kernel, initrd, disk, 'on')
        boot = ['--kernel', kernel, '--initrd', initrd, '--net', 'none', '--console', 'none']
        refused(lab, 'another-file', ['--seclabel', 'hako-one', *boot, '--disk', other], f'{other}: Permission denied')
        refused(lab, 'no-such-profile', ['--seclabel', 'hako-none', *boot], '--seclabel hako-none: No such file')
    finally:
        for name in 'hako-one', 'hako':
            try:
                with open('/sys/kernel/security/apparmor/.remove', 'w', encoding='ascii') as f:
                    f.write(name)
            except OSError:
                pass
        os.unlink(INSTALLED)
        shutil.rmtree(OWN)


TESTS = [('app-armor', app_armor)]
