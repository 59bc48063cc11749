"""Executes a command as in a default Docker container: with the restrictions of Docker's seccomp profile.

Run as python3 as_docker.py COMMAND…. The profile is a list of allowed calls, longer for a process with capabilities;
listed here are the calls that it denies to a process without any.
"""

import ctypes
import errno
import os
import sys

ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO with an errno in its low bits
MASKED_EQUAL = 7  # SCMP_CMP_MASKED_EQ
NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)  # CLONE_NEWNS …
REFUSED = """
    acct add_key bpf chroot clock_settime clock_settime64 create_module delete_module fanotify_init finit_module fsconfig
    fsmount fsopen fspick get_kernel_syms get_mempolicy init_module io_uring_enter io_uring_register io_uring_setup ioperm
    iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind mount mount_setattr move_mount move_pages nfsservctl
    open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise query_module quotactl quotactl_fd
    reboot request_key set_mempolicy set_mempolicy_home_node setdomainname sethostname setns settimeofday stime swapoff
    swapon sysfs syslog umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old
""".split()


class Argument(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = [("number", ctypes.c_uint), ("operation", ctypes.c_int), ("mask", ctypes.c_uint64), ("value", ctypes.c_uint64)]


def load_filter():
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(ALLOW)))

    def refuse(name, error, *arguments):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        array = (Argument * max(len(arguments), 1))(*arguments)
        # fails for calls unknown on this machine
        seccomp.seccomp_rule_add_array(context, ctypes.c_uint32(REFUSE | error), number, len(arguments), array)

    for name in REFUSED:
        refuse(name, errno.EPERM)
    refuse("clone3", errno.ENOSYS)  # seccomp cannot inspect its flags; the C library falls back to clone
    for flag in NAMESPACES:
        refuse("clone", errno.EPERM, Argument(0, MASKED_EQUAL, flag, flag))
    if seccomp.seccomp_load(context) != 0:
        sys.exit("the filter of system calls cannot be loaded")


load_filter()
os.execvp(sys.argv[1], sys.argv[1:])
