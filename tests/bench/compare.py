# SPDX-License-Identifier: GPL-2.0-only
"""Files that --json wrote: reading them, and what is worse or better in one than in another."""
import json

from measure import Failure, machine_line

FORMAT = 'hako-bench'
VERSION = 2  # of the schema in docs/performance.md; a field more is no new version, another meaning is
MACHINE = 'cpu', 'cpus', 'kernel', 'kvm'  # what makes it another machine
TIMES, STEADY, FEW = 0.05, 0.02, 0.1  # what is no change: of times, of counts and sizes, of what has no middle half


# What a file has to have, of which types: of itself, of each metric, of each of its rows.
NUMBER = (int, float)
RESULT = {'quick': bool, 'machine': dict, 'metrics': list}
METRIC = {'name': str, 'title': str, 'unit': str, 'better': str, 'steady': bool, 'digits': int, 'subject': str, 'rows': dict, 'promises': list,
          'best_peer': (str, type(None)), 'to_best_peer': (*NUMBER, type(None)), 'limit': (str, type(None)),
          'to_limit': (*NUMBER, type(None))}
ROW = {'samples': list, 'median': NUMBER, 'low': NUMBER, 'high': NUMBER, 'ratio': (*NUMBER, type(None))}


def need(what, fields):
    """Whether it has these, of these types."""
    for key, kind in fields.items():
        if not isinstance(what[key], kind) or (isinstance(what[key], bool) and kind is not bool):
            raise ValueError(f'{key}: {what[key]!r}'[:60])


def load(path):
    """Read a file, which anybody may have written."""
    try:
        with open(path, encoding='utf-8') as f:
            result = json.load(f)
    except (ValueError, RecursionError) as e:
        raise Failure(f'{path}: no JSON: {e}') from e
    if not isinstance(result, dict) or result.get('format') != FORMAT:
        raise Failure(f'{path}: not written by hako bench --json')
    if result.get('version') != VERSION:
        raise Failure(f'{path}: version {result.get("version")!r} of the format, this program knows {VERSION}')
    try:
        need(result, RESULT)
        machine_line(result['machine'])
        for m in result['metrics']:
            need(m, METRIC)
            if m['better'] not in ('lower', 'higher') or not 0 <= m['digits'] < 9:
                raise ValueError('better, digits')
            for _, relation, factor in m['promises']:
                need({'relation': relation, 'factor': factor}, {'relation': str, 'factor': NUMBER})
            for row in m['rows'].values():
                need(row, ROW)
    except KeyError as e:
        raise Failure(f'{path}: not as hako bench --json writes it: no {e}') from e
    except (TypeError, ValueError, AttributeError) as e:
        raise Failure(f'{path}: not as hako bench --json writes it: {e}') from e
    return result


def subjects(result):
    """hako's rows by (metric, column): those of the subject, and of its other boards and formats."""
    return {(m['name'], who): (m, row) for m in result['metrics'] for who, row in m['rows'].items()
            if who == m['subject'] or who.split()[0] == 'hako'}


def verdict(metric, before, after):
    """'worse', 'better' or None. The middle halves have to be apart, so that noise is no change."""
    old, new = before['median'], after['median']
    least = FEW if min(len(before['samples']), len(after['samples'])) < 3 else STEADY if metric['steady'] else TIMES
    # Of what is next to nothing beside what is promised, any change is a large part.
    bounds = [abs(factor) for other, _, factor in metric['promises'] if other is None]
    if abs(new - old) <= max(least * abs(old), *(STEADY * bound for bound in bounds), 0):
        return None
    if before['low'] <= after['high'] and after['low'] <= before['high']:
        return None
    return 'worse' if (new > old) == (metric['better'] == 'lower') else 'better'


def compare(before, after):
    """Print what has changed. Returns the exit status: 1 if something is worse."""
    same = all(before['machine'].get(key) == after['machine'].get(key) for key in MACHINE)
    print('A: ' + machine_line(before['machine']))
    print('B: ' + machine_line(after['machine']) + '\n')
    if not same:
        print('Two different machines: only counts and sizes are compared.\n')
    if before.get('quick') != after.get('quick'):
        print('One of them was measured with --quick.\n')
    old, new = subjects(before), subjects(after)
    compared = [key for key in new if key in old and (same or new[key][0]['steady'])]
    verdicts = {key: verdict(new[key][0], old[key][1], new[key][1]) for key in compared}
    for word in ('worse', 'better'):
        for name, who in (key for key in compared if verdicts[key] == word):
            m, a, b = new[name, who][0], old[name, who][1]['median'], new[name, who][1]['median']
            change = f'{b / a - 1:+.0%}' if a else 'from nothing'
            print(f'{word:<8}{name:<28} {who:<12} {a:>10.{m["digits"]}f} -> {b:>10.{m["digits"]}f} {m["unit"]}  {change}')
    worse, better = (sum(v == word for v in verdicts.values()) for word in ('worse', 'better'))
    gone = [key for key in old if key not in new and (same or old[key][0]['steady'])]
    if worse or better:
        print()
    print(f'{worse} worse, {better} better, {len(compared) - worse - better} as before; {len(gone)} in A only')
    return 1 if worse else 0
