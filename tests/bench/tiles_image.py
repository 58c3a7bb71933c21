# SPDX-License-Identifier: GPL-2.0-only
"""
The disk image of a tile's guests, made of Debian's packages without root: all services in one read-only image, of which each
guest has an overlay. Beside it pgbench with its libraries, out of the same packages, which the database is loaded with.
"""
import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import tempfile

import tiles_content
from measure import HERE, TOP, Failure

CACHE = os.environ.get('HAKO_CACHE') or os.path.join(TOP, 'out')
FILES = os.path.join(HERE, 'tile')
PACKAGES = 'nginx', 'postgresql-15', 'dovecot-imapd', 'redis-server', 'xz-utils', 'busybox-static'
# What only the packages' own scripts need, and what PostgreSQL would compile queries with.
UNUSED = re.compile('libllvm|libz3-|locales|libc-l10n|perl|libperl|lib.*-perl')
USERS = {'root': 0, 'www-data': 33, 'postgres': 101, 'redis': 102, 'dovecot': 103, 'dovenull': 104, 'vmail': 105}
SIZE_MIB = 512  # sparse
SCALE = 2  # of pgbench's tables: 200,000 accounts
POSTGRESQL = 'usr/lib/postgresql/15/bin'
LOADER = 'lib64/ld-linux-x86-64.so.2'


def run(command, **more):
    """Run a program: what it prints."""
    try:
        p = subprocess.run(command, capture_output=True, check=False, **{'stdin': subprocess.DEVNULL, **more})
    except OSError as e:
        raise Failure(f'{command[0]}: {e.strerror}') from e
    if p.returncode:
        said = (p.stderr.strip() or p.stdout.strip()).decode(errors='replace').splitlines()
        raise Failure(f'{" ".join(command[:6])}: exit status {p.returncode}: {said[-1] if said else ""}')
    return p.stdout.decode()


def packages():
    """Debian's packages and what they depend on, from the cache or from its servers: the files."""
    key = hashlib.sha256(repr((PACKAGES, UNUSED.pattern)).encode()).hexdigest()[:8]
    folder = os.path.join(CACHE, 'packages', 'tile-' + key)
    if not os.path.isdir(folder):
        apt = ['apt-get', '-qq', '-o', 'APT::Sandbox::User=root']
        with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as tmp:
            # As on a system that has nothing installed yet.
            put(tmp, 'status', b'')
            said = run([*apt, '-s', '-o', f'Dir::State::status={tmp}/status', '--no-install-recommends', 'install', *PACKAGES])
            os.mkdir(tmp + '/files')
            run([*apt, 'download', *(n for n in re.findall(r'^Inst (\S+)', said, re.M) if not UNUSED.match(n))], cwd=tmp + '/files')
            os.rename(tmp + '/files', folder)
    return sorted(glob.glob(folder + '/*.deb'))


def put(top, name, body, mode=0o644):
    """A file in a tree."""
    path = os.path.join(top, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'wb') as f:
        f.write(body)
    os.chmod(path, mode)


def unpack(debs, top):
    """The packages' files, and busybox's programs where there are no others."""
    for name in ('bin', 'sbin', 'lib', 'lib64'):
        os.makedirs(os.path.join(top, 'usr', name))
        os.symlink('usr/' + name, os.path.join(top, name))
    for deb in debs:
        with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', deb], stdout=subprocess.PIPE) as p:
            run(['tar', '-x', '--keep-directory-symlink', '--no-same-owner', '-C', top], stdin=p.stdout)
        if p.returncode:
            raise Failure(f'{deb}: dpkg-deb failed')
    for name in run([top + '/bin/busybox', '--list']).split():
        if not os.path.lexists(f'{top}/usr/bin/{name}') and not os.path.lexists(f'{top}/usr/sbin/{name}'):
            os.symlink('busybox', f'{top}/usr/bin/{name}')


def furnish(top):
    """What the services serve, and how they are set up."""
    for name in ('dev', 'proc', 'sys', 'run', 'tmp', 'root', 'mnt', 'var/lib/redis', 'var/lib/postgresql', 'var/log/nginx'):
        os.makedirs(os.path.join(top, name), exist_ok=True)
    os.chmod(top + '/tmp', 0o1777)
    put(top, 'etc/passwd', ''.join(f'{name}:x:{n}:{n}::/root:/bin/sh\n' for name, n in USERS.items()).encode())
    put(top, 'etc/group', ''.join(f'{name}:x:{n}:\n' for name, n in USERS.items()).encode())
    os.symlink('/run', top + '/var/run')
    for name in os.listdir(FILES):
        with open(os.path.join(FILES, name), 'rb') as f:
            put(top, 'etc/tile/' + name, f.read(), 0o755)
    for link, target in (('usr/sbin/init', '/etc/tile/init'), ('srv/cgi-bin/batch', '/etc/tile/batch')):
        if os.path.lexists(f'{top}/{link}'):
            os.remove(f'{top}/{link}')
        os.makedirs(os.path.dirname(f'{top}/{link}'), exist_ok=True)
        os.symlink(target, f'{top}/{link}')
    for name, size in tiles_content.PAGES.items():
        put(top, 'srv/www/' + name, tiles_content.content(name, size))
    put(top, 'srv/alive', b'alive\n')
    put(top, 'srv/job.txt', tiles_content.job_text())
    for user in range(tiles_content.MAIL_USERS):
        for folder in ('cur', 'new', 'tmp'):
            os.makedirs(f'{top}/var/mail/{tiles_content.mail_user(user)}/{folder}')
        for i in range(tiles_content.MAIL_MESSAGES):
            put(top, f'var/mail/{tiles_content.mail_user(user)}/cur/{1700000000 + i}.M{i}P1.tile:2,', tiles_content.message(user, i))


def fill_database(top):
    """Run initdb and pgbench in the tree, where they see their own libraries, and as a user that is not root."""
    os.chmod(top + '/var/lib/postgresql', 0o777)
    inside = ['unshare', '--user', '--map-user=101', '--map-group=101', '--root=' + top, '--wd=/', '/bin/sh', '/etc/tile/database', str(SCALE)]
    run(['unshare', '--user', '--map-root-user', '--mount', '/bin/sh', '-c', 'mount --rbind /dev "$1/dev" && shift && exec "$@"', 'sh', top, *inside],
        env={'PATH': os.environ['PATH']})
    os.chmod(top + '/var/lib/postgresql', 0o755)


def copy_pgbench(top, folder):
    """pgbench and all that it is linked with, in a directory."""
    os.mkdir(folder)
    libraries = f'{top}/usr/lib/x86_64-linux-gnu'
    said = run([f'{top}/{LOADER}', '--library-path', libraries, '--list', f'{top}/{POSTGRESQL}/pgbench'])
    for path in [f'{top}/{LOADER}', f'{top}/{POSTGRESQL}/pgbench', *re.findall(r'=> (\S+)', said)]:
        shutil.copy(path, folder)


def pgbench(folder):
    """The command to run it with."""
    return [f'{folder}/{os.path.basename(LOADER)}', '--library-path', folder, f'{folder}/pgbench']


def digest(debs):
    """A name for what an image is made of."""
    h = hashlib.sha256(repr((sorted(map(os.path.basename, debs)), USERS, SIZE_MIB, SCALE)).encode())
    for path in sorted(glob.glob(FILES + '/*')) + [__file__, tiles_content.__file__]:
        with open(path, 'rb') as f:
            h.update(os.path.basename(path).encode() + hashlib.sha256(f.read()).digest())
    return h.hexdigest()[:16]


def make(progress):
    """Make the image, or find it made: the paths of the image and of the directory with pgbench."""
    folder = os.path.join(CACHE, 'guests')
    os.makedirs(folder, exist_ok=True)
    os.makedirs(os.path.join(CACHE, 'packages'), exist_ok=True)
    with open(os.path.join(folder, 'tile.lock'), 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        progress.say("tile: Debian's packages")
        debs = packages()
        base = os.path.join(folder, 'tile-' + digest(debs))
        image, tool = base + '.ext4', base + '.pgbench'
        if os.path.exists(image):
            return image, tool
        with tempfile.TemporaryDirectory(dir=folder) as tmp:
            progress.say('tile: making the image')
            top = tmp + '/tree'
            os.mkdir(top)
            os.chmod(tmp, 0o755)
            unpack(debs, top)
            furnish(top)
            progress.say('tile: filling the database')
            fill_database(top)
            copy_pgbench(top, tmp + '/pgbench')
            for unused in ('usr/share/doc', 'usr/share/man', 'usr/share/locale'):
                shutil.rmtree(f'{top}/{unused}', ignore_errors=True)
            run(['/sbin/mke2fs', '-q', '-F', '-t', 'ext4', '-d', top, '-L', 'hako-tile', '-m', '0',
                 '-E', 'root_owner=0:0,lazy_itable_init=0,nodiscard', tmp + '/image', f'{SIZE_MIB}m'])
            os.chmod(tmp + '/image', 0o444)
            shutil.rmtree(tool, ignore_errors=True)
            os.rename(tmp + '/pgbench', tool)
            os.rename(tmp + '/image', image)
    return image, tool
