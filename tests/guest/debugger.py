# SPDX-License-Identifier: GPL-2.0-only
"""The guest of tests/guest in the hands of the real GDB.

All stops are at CPL 0, where every KVM can make them: see "How they run" in the README.
"""
import re
import shutil
import subprocess

# GDB's commands, and what it has to say to each.
SESSION = [
    ("info threads", r"\* 1 +Thread 1 \(vCPU 0, running\) +_start"),
    ("info threads", r"2 +Thread 2 \(vCPU 1, waits to be started\)"),
    ("p/x $cr0", r"= 0x11\b"),
    ("p/x $cs", r"= 0x10\b"),
    ("p $eflags", r"= \[ "),
    ("p/x $fctrl", r"= 0x37f\b"),
    ("p $mxcsr", r"= \[ IM DM ZM OM UM PM RC=0 \]"),
    ("set $mxcsr = 0x1fa0", r""),
    ("p $mxcsr", r"= \[ PE IM DM ZM OM UM PM RC=0 \]"),
    ("set $mxcsr = 0x1f80", r""),
    ("set $xmm3.v2_int64[1] = 0x1122334455667788", r""),
    ("set $xmm3.v2_int64[0] = 0x99aabbccddeeff00", r""),
    ("p/x $xmm3.v2_int64", r"= \{0x99aabbccddeeff00, 0x1122334455667788\}"),
    ("p $xmm0.uint128", r"= 0"),
    ("stepi", r"boot_magic"),
    ("hbreak k_rdmsr", r"Hardware assisted breakpoint"),
    ("continue", r"Breakpoint \d+, k_rdmsr"),
    ("backtrace 2", r"gate_entry"),
    ("p/x $efer & 0x500", r"= 0x500\b"),
    ("p/x $cs & 3", r"= 0x0\b"),
    ("p $rip == k_rdmsr", r"= 1\b"),
    ("stepi", r"\brdmsr\b"),
    ("set $kept = $rdi", r""),
    ("set $rdi = 0x1122334455667788", r""),
    ("p/x $rdi", r"= 0x1122334455667788\b"),
    ("set $rdi = $kept", r""),
    ("set var failures = 77", r""),
    ("p failures", r"= 77\b"),
    ("monitor physical on", r"physical"),
    ("x/1dw &failures", r":\s77\b"),
    ("monitor physical off", r"linear"),
    ("set var failures = 0", r""),
    ("p *(char *)0x7fffffff0000", r"Cannot access memory at address 0x7fffffff0000"),
    ("delete", r""),
    ("thbreak k_rdmsr thread 2", r"Hardware assisted breakpoint"),
    ("continue", r"k_rdmsr"),
    ("info threads", r"\* 2 +Thread 2 \(vCPU 1, running\) +k_rdmsr"),
    ("thread 1", r"Switching to thread 1"),
    ("detach", r"detached"),
]


def session(run):
    """Hold the guest at its start, look at it, let it go: it passes as without us."""
    run.talk = None
    if not shutil.which("gdb"):
        run.talk = "there is no gdb (tools/setup installs it)"
        return
    command = ["gdb", "-nx", "-batch", "-ex", "set confirm off", "-ex", "set pagination off", "-ex",
               "set tcp connect-timeout 10", "-ex", f"target remote {run.places('{near}')}"]
    for i, (text, _) in enumerate(SESSION):
        command += ["-ex", f"echo @{i}\\n", "-ex", text]
    done = subprocess.run(command + [run.kernel + ".64"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False,
                          stderr=subprocess.STDOUT, text=True, timeout=60)
    said = dict(re.findall(r"^@(\d+)\n(.*?)(?=^@\d+\n|\Z)", done.stdout, re.M | re.S))
    for i, (text, pattern) in enumerate(SESSION):
        if not re.search(pattern, said.get(str(i), ""), re.M):
            run.talk = f"gdb: {text}: {said.get(str(i), 'nothing').strip()!r}"
            return
