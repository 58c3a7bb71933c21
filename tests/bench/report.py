# SPDX-License-Identifier: GPL-2.0-only
"""Results as pictures: SVG, and a page of HTML that holds all it needs."""
import html
import math

from measure import PEERS, machine_line

OURS, OTHERS, LIMIT, BROKEN, INK, FAINT = '#1b7f79', '#9aa5b1', '#c9a227', '#c0392b', '#222b33', '#d8dee4'
FONT = 'font-family="system-ui, sans-serif"'


def svg(width, height, body):
    """A picture."""
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}" {FONT} '
            f'font-size="13" fill="{INK}">\n<rect width="{width}" height="{height:g}" rx="6" fill="#fff"/>\n' + '\n'.join(body) + '\n</svg>\n')


def text(x, y, said, anchor='start', more=''):
    """A line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{html.escape(said)}</text>'


def line(x1, y1, x2, y2, colour, width=1):
    """A line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


# --- bars of one quantity ----------------------------------------------------------------------


def colour_of(metric, who):
    """By what it is: the subject and its like, the limit, others."""
    if who.split()[0] == 'hako' or who == metric['subject']:
        return OURS
    return LIMIT if who == metric['limit'] else OTHERS


def bars(metric, before=None):
    """A bar for each program, with the middle half; a hollow one for what it was before."""
    rows = [(who, row, colour_of(metric, who), False) for who, row in metric['rows'].items()]
    if before and metric['subject'] in before['rows']:
        rows.insert(1, (metric['subject'] + ', before', before['rows'][metric['subject']], OURS, True))
    left, wide, step = 170, 430, 24
    tops = sorted(max(row['high'], row['median']) for _, row, _, _ in rows)
    # One that is far beyond all others would make them points: it is cut, and says so by an arrow.
    full = tops[-2] * 3 if len(tops) > 2 and tops[-1] > tops[-2] * 10 and tops[-2] > 0 else tops[-1] or 1
    scale = wide / full
    body = []
    for i, (who, row, colour, hollow) in enumerate(rows):
        y, width, cut = 8 + i * step, min(max(row['median'] * scale, 1), wide), row['median'] > full
        look = f'fill="#fff" stroke="{colour}"' if hollow else f'fill="{colour}"'
        body.append(text(left - 8, y + 13, who, 'end'))
        body.append(f'<rect x="{left}" y="{y}" width="{width:.1f}" height="16" rx="2" {look}/>')
        low, high = left + max(row['low'], 0) * scale, left + max(row['high'], 0) * scale
        if high - low >= 1 and not cut:
            body += [line(low, y + 8, high, y + 8, INK, 1.5), line(low, y + 4, low, y + 12, INK), line(high, y + 4, high, y + 12, INK)]
        said = f'{row["median"]:.{metric["digits"]}f}'
        if row.get('ratio') is not None:
            said += f'  ({row["ratio"]:.2f} x)'
        if 'promised' in row and not hollow:
            said += f'  promised {row["promised"]}' + ('' if row['kept'] else ': not kept')
        said = '→ ' * cut + said
        body.append(text(left + (width if cut else max(width, high - left)) + 8, y + 13, said,
                         more=f'fill="{BROKEN}"' if not row.get('kept', True) and not hollow else ''))
    return svg(left + wide + 260, 16 + len(rows) * step, body)


# --- promises beside others --------------------------------------------------------------------


def beside(result):
    """What is promised in terms of other VMMs: (title, other, times better, promised times)."""
    for m in result['metrics']:
        for other, relation, factor in m['promises']:
            if other and other.startswith(PEERS) and other in m['rows'] and m['rows'][other]['ratio']:
                ratio = m['rows'][other]['ratio']
                yield m['title'], other, *((1 / ratio, 1 / factor) if relation == '<=' else (ratio, factor))


def plot(result):
    """A dot for each: how many times faster (or smaller) than the other hako is, and a mark for what is promised."""
    rows = list(beside(result))
    left, wide, step, top = 400, 330, 24, 56
    low = min([0.5] + [v for r in rows for v in r[2:]])
    high = max([4] + [v for r in rows for v in r[2:]]) * 1.1

    def place(value):
        return left + wide * math.log(value / low) / math.log(high / low)

    end = top + step * len(rows)
    body = [text(16, 26, 'hako beside QEMU: how many times as fast', more='font-size="16" font-weight="600"')]
    for power in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1):
        x = place(2 ** power)
        body += [line(x, top - 6, x, end, INK if power == 0 else FAINT), text(x, top - 12, f'{2 ** power:g}', 'middle', 'font-size="12"')]
    for i, (title, other, value, promise) in enumerate(rows):
        y, colour = top + i * step + 12, OURS if value >= promise else BROKEN
        body += [text(left - 12, y + 4, title if len(title) < 58 else title[:56] + '…', 'end', 'font-size="12"'),
                 line(place(1), y, place(value), y, colour, 3), line(place(promise), y - 7, place(promise), y + 7, INK, 2),
                 f'<circle cx="{place(value):.1f}" cy="{y}" r="5" fill="{colour}"/>',
                 text(max(place(value), place(promise)) + 10, y + 4, f'{value:.2f}', more=f'font-size="12" fill="{colour}"')]
        del other
    body.append(text(16, end + 22, 'Medians; a bar marks what is promised, red is what is not kept.', more='font-size="12"'))
    said = machine_line(result['machine'])
    cut = said.find(';') + 1
    body += [text(16, end + 40, said[:cut], more='font-size="11"'), text(16, end + 56, said[cut:].strip(), more='font-size="11"')]
    return svg(800, end + 68, body)


# --- the page ----------------------------------------------------------------------------------

STYLE = '''body { font: 15px/1.5 system-ui, sans-serif; color: #222b33; background: #f4f6f8; max-width: 900px; margin: 2em auto; padding: 0 1em }
h2 { margin-top: 2em } h3 { font-size: 1em; margin: 1.5em 0 .3em } h3 code { font-weight: normal; color: #66717d }
svg { max-width: 100%; height: auto } p.small { color: #66717d; font-size: .9em }'''


def page(result, before=None):
    """A page that needs nothing else. @before: another result, to compare with."""
    old = {m['name']: m for m in before['metrics']} if before else {}
    out = ['<!DOCTYPE html>', '<html lang="en"><head><meta charset="utf-8"><title>hako bench</title>', f'<style>{STYLE}</style></head><body>',
           '<h1>hako bench</h1>', f'<p>{html.escape(machine_line(result["machine"]))}</p>']
    if before:
        out.append(f'<p>Before: {html.escape(machine_line(before["machine"]))}</p>')
    out.append('<p class="small">Bars are medians of several rounds, run in turn; the line in a bar is the middle half of the values. '
               '"x" is hako\'s value in terms of that one.</p>')
    if any(beside(result)):
        out.append(plot(result))
    part = None
    for m in result['metrics']:
        if m['name'].split('.')[0] != part:
            part = m['name'].split('.')[0]
            out.append(f'<h2>{html.escape(part)}</h2>')
        out.append(f'<h3>{html.escape(m["title"])}, {html.escape(m["unit"])}; {m["better"]} is better <code>{html.escape(m["name"])}</code></h3>')
        out.append(bars(m, old.get(m['name'])))
    return '\n'.join(out) + '\n</body></html>\n'
