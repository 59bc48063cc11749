/* slow_writes: makes a program's loop iterations long. Loaded with LD_PRELOAD, never linked.
 *
 * After each write to a socket the program stops for TEST_SLOW_WRITES milliseconds, as if the kernel ran something else.
 * Then an iteration that writes many answers takes longer than the deadlines that were set in it. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int pause_ms;

__attribute__((constructor)) static void read_pause(void)
{
    const char *text = getenv("TEST_SLOW_WRITES");
    pause_ms = text != NULL ? atoi(text) : 0;
}

static ssize_t pause_after(ssize_t result, int fd)
{
    int saved = errno;
    if (fd > STDERR_FILENO)
        syscall(SYS_ppoll, NULL, 0, &(struct timespec){.tv_nsec = pause_ms * 1000000L}, NULL, 0);
    errno = saved;
    return result;
}

ssize_t write(int fd, const void *data, size_t len)
{
    return pause_after(syscall(SYS_write, fd, data, len), fd);
}

ssize_t writev(int fd, const struct iovec *parts, int n)
{
    return pause_after(syscall(SYS_writev, fd, parts, n), fd);
}

ssize_t send(int fd, const void *data, size_t len, int flags)
{
    return pause_after(syscall(SYS_sendto, fd, data, len, flags, NULL, 0), fd);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    return pause_after(syscall(SYS_sendmsg, fd, message, flags), fd);
}
