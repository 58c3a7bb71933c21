# SPDX-License-Identifier: GPL-2.0-only
"""
iperf3 with a stock guest over tap, by the kernel's vhost-net and by the program, in the lab where no stock kernel can run
here: both VMMs in turn in one lab machine.
"""
import json
import os
import subprocess
import sys
import tempfile
import types

from measure import HERE, TOP, Failure, Spec, metrics, rotated

LAB = os.path.join(TOP, 'tests', 'lab')
sys.path.insert(0, LAB)
import guest  # pylint: disable=wrong-import-position

MARK = '# bench '
SECONDS = 3
METRICS = tuple(Spec(f'iperf.{direction}.{how}', f'iperf3 {direction} a stock guest, ' + ('vhost-net' if how == 'vhost' else 'by the program'),
                     'Mbit/s', better='higher', promises=(('QEMU', '>=', factor),))
                for how, factor in (('vhost', 1), ('program', 1.2)) for direction in ('to', 'from'))


def rates(test_net, net, g):
    """What iperf3 finds to and from a guest that boots."""
    test_net.ready(net, g)
    g.run('tool iperf3 -s -D')
    for direction, options in (('to', []), ('from', ['-R'])):
        said = net.run('iperf3', '-J', '-c', net.net4 + '2', '-t', str(SECONDS), '-O', '1', '--connect-timeout', '20000',
                       *options)
        yield direction, json.loads(said)['end']['sum_received']['bits_per_second'] / 1e6


def inside(paths, rounds):
    """In the lab: each result is a line of JSON."""
    import test_net  # pylint: disable=import-outside-toplevel
    with open(paths, encoding='utf-8') as f:
        paths = json.load(f)
    with tempfile.TemporaryDirectory(prefix='hako-bench-', dir='/dev/shm') as scratch:
        lab = types.SimpleNamespace(pieces=guest.Pieces(paths, scratch))
        lab.pieces.tools()
        for i in range(int(rounds)):
            for vhost, vmm in rotated([(v, w) for v in ('on', 'off') for w in ('hako', 'qemu')], i):
                with test_net.Network(i) as net:
                    nets = [guest.Net('tap', test_net.MAC % 0x56, tap=net.taps[0], vhost=vhost)]
                    with guest.Guest(test_net.spec(lab, 'q35', nets), vmm) as g:
                        for direction, rate in rates(test_net, net, g):
                            print(MARK + json.dumps({'who': vmm, 'vhost': vhost, 'direction': direction, 'rate': rate}), flush=True)


def run(a, progress):
    """The metrics."""
    found = metrics(METRICS)
    rounds, done = 1 if a.quick else 3, 0
    progress.say('stock guests: the lab starts')
    with tempfile.NamedTemporaryFile('w', prefix='hako-bench-', encoding='utf-8') as f:
        json.dump(guest.pieces(('cloud',)), f)
        f.flush()
        command = [os.path.join(LAB, 'run'), '--timeout', '1800', '--', sys.executable, os.path.join(HERE, 'run'),
                   '--inside', 'iperf', f.name, str(rounds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                              env=dict(os.environ, HAKO=os.path.abspath(a.hako))) as p:
            for line in p.stdout:
                if line.startswith(MARK):
                    r = json.loads(line[len(MARK):])
                    found[f'iperf.{r["direction"]}.{"vhost" if r["vhost"] == "on" else "program"}'].add(
                        'hako' if r['who'] == 'hako' else 'QEMU', r['rate'])
                    done += 1
                    progress.say(f'stock guests: {done} of {8 * rounds} runs of iperf3')
    if p.returncode:
        raise Failure(f'in the lab: exit status {p.returncode}')
    return found
