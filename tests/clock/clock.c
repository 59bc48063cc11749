/* clock: lets a test control the time of a process. Loaded with LD_PRELOAD (clock.py), never linked.
 *
 * The programs under test, including libuv, read the time with clock_gettime(2), gettimeofday(2) and time(2). These
 * versions read it from a file that the test also maps: the time runs with an offset, or is frozen. A program sleeps in
 * epoll_wait(2) until its next timer; this version also returns when the file changes (inotify), so that the program
 * reads the clock again. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000, NS_PER_S = 1000000000, SETTINGS = 64 };

/* While running, added to the system's clocks; while frozen, the time itself. */
struct setting {
    int64_t frozen; /* 0 or 1 */
    int64_t wall_ns;
    int64_t monotonic_ns;
};

/* Each change uses the next element, so that readers of the previous one are not disturbed. */
struct shared {
    int64_t changes;
    struct setting settings[SETTINGS];
};

static const struct shared *shared; /* NULL: the system's clocks */
static int watch = -1;              /* inotify: readable after a change */

__attribute__((constructor)) static void open_clock(void)
{
    const char *path = getenv("TEST_CLOCK");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch < 0 || inotify_add_watch(watch, path, IN_MODIFY) < 0)
        abort();
    void *memory = mmap(NULL, sizeof(struct shared), PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        abort();
    close(fd);
    shared = memory;
}

/* In a program that sleeps in epoll, time passes only there. If it passed between libuv's reading of the clock and its
 * sleep, a timer that a step has made due would wait for the next step. */
static bool uses_epoll;
static int64_t change_seen;

static void see_changes(void)
{
    uses_epoll = true;
    change_seen = __atomic_load_n(&shared->changes, __ATOMIC_ACQUIRE);
}

static struct setting setting_now(void)
{
    int64_t change = uses_epoll ? change_seen : __atomic_load_n(&shared->changes, __ATOMIC_ACQUIRE);
    return shared->settings[change % SETTINGS];
}

static bool is_monotonic(clockid_t id)
{
    return id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE || id == CLOCK_MONOTONIC_RAW ||
           id == CLOCK_BOOTTIME;
}

static bool is_wall(clockid_t id)
{
    return id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
}

int clock_gettime(clockid_t id, struct timespec *ret_time)
{
    if (syscall(SYS_clock_gettime, id, ret_time) < 0)
        return -1;
    if (shared == NULL || (!is_wall(id) && !is_monotonic(id)))
        return 0;
    struct setting setting = setting_now();
    int64_t ns = is_wall(id) ? setting.wall_ns : setting.monotonic_ns;
    if (!setting.frozen)
        ns += (int64_t)ret_time->tv_sec * NS_PER_S + ret_time->tv_nsec;
    *ret_time = (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
    return 0;
}

int gettimeofday(struct timeval *restrict ret_time, void *restrict zone)
{
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *ret_time = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *ret_time)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (ret_time != NULL)
        *ret_time = now.tv_sec;
    return now.tv_sec;
}

static int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

static void forget_changes(void)
{
    char events[4096];
    while (read(watch, events, sizeof(events)) > 0)
        ;
}

/* Waits until epoll has an event, a signal arrives, or the clock changes. */
static int sleep_ns(int epoll, int64_t ns, const sigset_t *mask)
{
    struct pollfd fds[] = {{.fd = epoll, .events = POLLIN}, {.fd = watch, .events = POLLIN}};
    const struct timespec most = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
    bool forever = ns < 0 || setting_now().frozen;
    return ppoll(fds, 2, forever ? NULL : &most, mask);
}

int epoll_pwait(int epoll, struct epoll_event *events, int n, int timeout_ms, const sigset_t *mask)
{
    if (shared == NULL)
        return (int)syscall(SYS_epoll_pwait, epoll, events, n, timeout_ms, mask, _NSIG / 8);
    int64_t end_ns = monotonic_ns() + (int64_t)timeout_ms * NS_PER_MS;
    for (;;) {
        forget_changes(); /* before they are seen, so that none is missed */
        see_changes();
        int64_t left_ns = timeout_ms < 0 ? -1 : end_ns - monotonic_ns();
        int ready = (int)syscall(SYS_epoll_pwait, epoll, events, n, 0, mask, _NSIG / 8);
        see_changes(); /* an event may have come after a step */
        if (ready != 0 || (timeout_ms >= 0 && left_ns <= 0))
            return ready;
        if (sleep_ns(epoll, left_ns, mask) < 0)
            return -1;
    }
}

int epoll_wait(int epoll, struct epoll_event *events, int n, int timeout_ms)
{
    return epoll_pwait(epoll, events, n, timeout_ms, NULL);
}
