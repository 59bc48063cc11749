/* notify: see notify.h. */
#include "server/notify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "lib/log.h"

/* A path, or with an '@' in front a name that stands in no folder. */
static bool read_address(struct notify *notify, const char *text)
{
    size_t len = strlen(text);
    if ((text[0] != '/' && text[0] != '@') || len < 2 || len >= sizeof(notify->address.sun_path))
        return false;
    notify->address.sun_family = AF_UNIX;
    memcpy(notify->address.sun_path, text, len + 1);
    notify->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    if (text[0] == '@') {
        notify->address.sun_path[0] = '\0';
        notify->address_len--; /* of such a name every byte counts */
    }
    return true;
}

static void open_socket(struct notify *notify)
{
    const char *text = getenv("NOTIFY_SOCKET");
    if (text == NULL)
        return;
    if (!read_address(notify, text)) {
        log_warn("the service manager is not told anything: NOTIFY_SOCKET is no UNIX socket");
        return;
    }
    notify->name = xstrdup(text);
    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    /* A manager that does not read holds us up for a moment only. */
    const struct timeval patience = {.tv_sec = 1};
    if (notify->fd >= 0)
        setsockopt(notify->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

static int64_t read_watchdog(void)
{
    const char *pid_text = getenv("WATCHDOG_PID"), *text = getenv("WATCHDOG_USEC");
    int64_t pid, us;
    if (text == NULL || parse_int(text, &us) < 0 || us < 1000)
        return 0;
    if (pid_text != NULL && (parse_int(pid_text, &pid) < 0 || pid != getpid()))
        return 0;
    return us / 1000;
}

void notify_init(struct notify *notify)
{
    *notify = (struct notify){.fd = -1, .watchdog_ms = read_watchdog()};
    open_socket(notify);
    notify_take_back();
}

void notify_take_back(void)
{
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_done(struct notify *notify)
{
    if (notify->fd >= 0)
        close(notify->fd);
    notify->fd = -1;
    free(notify->name);
    notify->name = NULL;
}

void notify_hand_over(const struct notify *notify)
{
    if (notify->name != NULL)
        setenv("NOTIFY_SOCKET", notify->name, 1);
    if (notify->watchdog_ms == 0)
        return;
    char *us = xasprintf("%lld", (long long)notify->watchdog_ms * 1000);
    setenv("WATCHDOG_USEC", us, 1);
    free(us);
}

/* `text`, which is given up, has a line for each thing that is said. */
static void send_text(const struct notify *notify, char *text)
{
    if (notify->fd >= 0 && sendto(notify->fd, text, strlen(text), MSG_NOSIGNAL,
                                  (const struct sockaddr *)&notify->address, notify->address_len) < 0)
        log_debug("the service manager cannot be told: %s", strerror(errno));
    free(text);
}

/* What follows `prefix` stays one line. */
static void send_line(const struct notify *notify, const char *prefix, const char *line)
{
    char *text = xasprintf("%s%s", prefix, line);
    for (char *at = text + strlen(prefix); *at != '\0'; at++) {
        if (*at == '\n')
            *at = ' ';
    }
    send_text(notify, text);
}

void notify_ready(const struct notify *notify, const char *status)
{
    send_line(notify, "READY=1\nSTATUS=", status);
}

void notify_status(const struct notify *notify, const char *status)
{
    send_line(notify, "STATUS=", status);
}

void notify_reloading(const struct notify *notify)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long us = (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    send_text(notify, xasprintf("RELOADING=1\nMONOTONIC_USEC=%lld\nSTATUS=reloading", us));
}

void notify_stopping(const struct notify *notify, int64_t within_ms)
{
    send_text(notify, xasprintf("STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld\nSTATUS=finishing what is held",
                                (long long)within_ms * 1000));
}

void notify_alive(const struct notify *notify)
{
    send_text(notify, xstrdup("WATCHDOG=1"));
}
