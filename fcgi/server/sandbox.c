/* sandbox: see sandbox.h.
 *
 * The filter allows the system calls that the worker, libuv, libcurl with its resolver threads, OpenSSL and
 * the C library with its name lookup were observed to make, and the variants that other versions of these
 * libraries use. Any other call fails with ENOSYS, so that libraries fall back to an older call. Calls that
 * only an intruder would make kill the process. */
#include "server/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/landlock.h>
#include <seccomp.h>

#include "lib/log.h"

/* ---- users and groups ---- */

/* The account with that name or number, or NULL. A number without an account gets no name and the group of the same
 * number. */
static const struct passwd *account_of(const char *user)
{
    static struct passwd nameless;
    int64_t number;
    if (parse_int(user, &number) < 0)
        return getpwnam(user);
    const struct passwd *account = getpwuid((uid_t)number);
    nameless = (struct passwd){.pw_uid = (uid_t)number, .pw_gid = (gid_t)number};
    return account != NULL ? account : &nameless;
}

bool sandbox_has_user(const char *user)
{
    return account_of(user) != NULL;
}

int sandbox_find_group(const char *group, gid_t *ret_gid)
{
    int64_t number;
    const struct group *entry;
    if (parse_int(group, &number) == 0)
        *ret_gid = (gid_t)number;
    else if ((entry = getgrnam(group)) != NULL)
        *ret_gid = entry->gr_gid;
    else
        return -1;
    return 0;
}

static char *leave_root(const char *user)
{
    const struct passwd *account = account_of(user);
    if (account == NULL)
        return xasprintf("there is no user \"%s\" to run as", user);
    int failed =
        account->pw_name != NULL ? initgroups(account->pw_name, account->pw_gid) : setgroups(0, NULL);
    if (failed || setgid(account->pw_gid) < 0 || setuid(account->pw_uid) < 0)
        return xasprintf("cannot become the user \"%s\": %s", user, strerror(errno));
    return NULL;
}

static char *limit_capabilities(uint32_t kept)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {
        {.permitted = kept, .effective = kept}};
    if (syscall(SYS_capset, &header, sets) < 0)
        return xasprintf("cannot limit the capabilities: %s", strerror(errno));
    return NULL;
}

char *sandbox_become(const char *user)
{
    char *error = geteuid() == 0 ? leave_root(user) : NULL;
    return error != NULL ? error : limit_capabilities(0);
}

char *sandbox_read_as(const char *user)
{
    const struct passwd *account = account_of(user);
    if (account != NULL && geteuid() != 0)
        return account->pw_uid == geteuid() ? NULL : xstrdup("--as: only root can check as another user");
    prctl(PR_SET_KEEPCAPS, 1); /* until the next exec */
    char *error = leave_root(user);
    return error != NULL ? error : limit_capabilities(1U << CAP_DAC_READ_SEARCH);
}

/* ---- files ---- */

/* What the C library's name lookup, its modules, and TLS read after the start. */
static const char *const readable[] = {"/etc/ssl",
                                       "/usr/share/ca-certificates",
                                       "/usr/local/share/ca-certificates",
                                       "/usr/lib",
                                       "/lib",
                                       "/lib64",
                                       "/etc/ld.so.cache",
                                       "/etc/nsswitch.conf",
                                       "/etc/host.conf",
                                       "/etc/hosts",
                                       "/etc/gai.conf",
                                       "/etc/services",
#ifdef __SANITIZE_ADDRESS__
                                       "/proc",
#endif
                                       "/dev/urandom"};

/* A path that does not exist is skipped. */
static int allow_reading(int rules, const char *path)
{
    struct stat st;
    struct landlock_path_beneath_attr rule = {.parent_fd = open(path, O_PATH | O_CLOEXEC)};
    if (rule.parent_fd < 0 || fstat(rule.parent_fd, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    rule.allowed_access =
        LANDLOCK_ACCESS_FS_READ_FILE | (S_ISDIR(st.st_mode) ? LANDLOCK_ACCESS_FS_READ_DIR : 0ULL);
    long result = syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    int bad = result < 0 ? -errno : 0;
    close(rule.parent_fd);
    return bad;
}

/* The file is replaced when the network changes, so its folder has to be readable. */
static int allow_resolver(int rules)
{
    char *path = realpath("/etc/resolv.conf", NULL);
    if (path == NULL)
        return 0;
    *strrchr(path, '/') = '\0';
    int bad = allow_reading(rules, path);
    free(path);
    return bad;
}

/* A ruleset that forbids every access to files that this kernel knows, or a negative errno. Versions 2, 3 and 5 of
 * Landlock added one right each to the 13 of the first; the header may be older than the kernel. */
static int make_rules(void)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 1)
        return version < 0 ? -errno : -EOPNOTSUPP;
    int rights = 13 + (version >= 2) + (version >= 3) + (version >= 5);
    const struct landlock_ruleset_attr all = {.handled_access_fs = (1ULL << rights) - 1};
    long rules = syscall(SYS_landlock_create_ruleset, &all, sizeof(all.handled_access_fs), 0);
    return rules < 0 ? -errno : (int)rules;
}

static int limit_files(void)
{
    int rules = make_rules(), bad = rules < 0 ? rules : allow_resolver(rules);
    for (size_t i = 0; i < NELEMS(readable) && bad == 0; i++)
        bad = allow_reading(rules, readable[i]);
    if (bad == 0 && syscall(SYS_landlock_restrict_self, rules, 0) < 0)
        bad = -errno;
    if (rules >= 0)
        close(rules);
    return bad;
}

/* ---- system calls ---- */

/* Allowed with any arguments. */
static const char allowed[] =
    /* descriptors and files */
    "read readv pread64 write writev lseek close close_range dup fcntl pipe2 eventfd2 stat lstat fstat "
    "newfstatat statx access faccessat faccessat2 readlink readlinkat getdents64 getcwd "
    /* waiting */
    "epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6 nanosleep "
    "clock_nanosleep clock_gettime clock_getres gettimeofday time restart_syscall "
    /* sockets */
    "socketpair accept accept4 connect bind getsockopt setsockopt getsockname getpeername shutdown sendto "
    "sendmsg sendmmsg recvfrom recvmsg recvmmsg "
    /* memory */
    "brk munmap mremap madvise mlock mlock2 munlock "
    /* threads and signals */
    "futex set_robust_list rseq membarrier sched_yield sched_getaffinity rt_sigaction rt_sigprocmask "
    "rt_sigreturn sigaltstack exit exit_group "
    /* harmless information */
    "getpid gettid getppid getuid geteuid getgid getegid uname sysinfo getrandom getrlimit "
#ifdef __SANITIZE_ADDRESS__
    /* LeakSanitizer stops all threads with these */
    "clone ptrace prctl wait4 getdents "
#endif
    ;

/* Allowed with these arguments. */
static const struct {
    int call;
    struct scmp_arg_cmp argument;
} conditions[] = {
    /* no file is written or created */
    {SCMP_SYS(open), SCMP_A1(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY)},
    {SCMP_SYS(openat), SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY)},
    /* no memory is both writable and executable; the C library may still load its name lookup modules */
    {SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
    {SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC | PROT_WRITE, PROT_EXEC)},
    {SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
    /* threads, not processes; clone3, whose arguments a filter cannot read, is not allowed */
    {SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)},
    {SCMP_SYS(socket), SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0)},
    {SCMP_SYS(socket), SCMP_A0(SCMP_CMP_EQ, AF_INET, 0)},
    {SCMP_SYS(socket), SCMP_A0(SCMP_CMP_EQ, AF_INET6, 0)},
    {SCMP_SYS(socket), SCMP_A0(SCMP_CMP_EQ, AF_NETLINK, 0)}, /* the addresses of this host */
    {SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONBIO, 0)},
    {SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONREAD, 0)},
    {SCMP_SYS(prlimit64), SCMP_A2(SCMP_CMP_EQ, 0, 0)}, /* read, not set */
};

static const char deadly[] =
    "execve execveat fork vfork process_vm_readv process_vm_writev bpf perf_event_open "
    "userfaultfd mount umount2 pivot_root chroot setns unshare init_module "
    "finit_module delete_module kexec_load kexec_file_load open_by_handle_at add_key "
    "request_key keyctl "
#ifndef __SANITIZE_ADDRESS__
    "ptrace "
#endif
    ;

/* `names` are separated by spaces. */
static int add_calls(scmp_filter_ctx filter, uint32_t action, const char *names)
{
    char name[32];
    int bad = 0, len;
    for (; bad == 0 && sscanf(names, "%31s %n", name, &len) == 1; names += len)
        bad = seccomp_rule_add(filter, action, seccomp_syscall_resolve_name(name), 0);
    return bad;
}

static int add_rules(scmp_filter_ctx filter)
{
    int bad = add_calls(filter, SCMP_ACT_ALLOW, allowed);
    for (size_t i = 0; i < NELEMS(conditions) && bad == 0; i++)
        bad = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, conditions[i].call, 1, &conditions[i].argument);
    if (bad == 0)
        bad = add_calls(filter, SCMP_ACT_KILL_PROCESS, deadly);
    if (bad == 0) /* abort() */
        bad = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                               SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
    return bad;
}

/* Whether io_uring_setup is forbidden or missing, rather than failing because of its arguments. */
static bool io_uring_is_refused(void)
{
    return syscall(SYS_io_uring_setup, 0, NULL) < 0 && (errno == ENOSYS || errno == EPERM);
}

static void refuse_io_uring(void)
{
    if (io_uring_is_refused()) /* filters are inherited: a second one would be redundant */
        return;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (filter == NULL)
        return;
    if (seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(io_uring_setup), 0) == 0)
        (void)seccomp_load(filter);
    seccomp_release(filter);
}

void sandbox_protect_process(void)
{
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
    refuse_io_uring();
}

static int limit_calls(void)
{
    if (sizeof(void *) < 8)
        return -EOPNOTSUPP; /* the lists name the calls of 64-bit systems */
    if (!io_uring_is_refused())
        return -EOPNOTSUPP; /* the loop may have a ring, and libuv aborts when it cannot use it */
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    if (filter == NULL)
        return -EOPNOTSUPP;
    int bad = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary search over the calls */
    if (bad == 0) /* no untrusted code runs here, so the slow Spectre mitigation is not needed */
        bad = seccomp_attr_set(filter, SCMP_FLTATR_CTL_SSB, 1);
    if (bad == 0)
        bad = add_rules(filter);
    if (bad == 0)
        bad = seccomp_load(filter);
    seccomp_release(filter);
    return bad;
}

void sandbox_enter(void)
{
    int bad = limit_files();
    if (bad < 0)
        log_warn("running without Landlock: %s", strerror(-bad));
    bad = limit_calls();
    if (bad < 0)
        log_warn("running without seccomp: %s", strerror(-bad));
}
