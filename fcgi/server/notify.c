/* notify: see notify.h. */
#include "server/notify.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "lib/log.h"

/* ---- the environment ---- */

/* Reads a path, or a name in the abstract namespace, which begins with '@'. Returns false if it is neither. */
static bool read_address(struct notify *notify, const char *text)
{
    size_t len = strlen(text);
    bool is_abstract = text[0] == '@';
    if ((text[0] != '/' && !is_abstract) || len < 2 || len >= sizeof(notify->address.sun_path))
        return false;
    notify->address.sun_family = AF_UNIX;
    memcpy(notify->address.sun_path, text, len);
    if (is_abstract)
        notify->address.sun_path[0] = '\0';
    notify->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + !is_abstract);
    return true;
}

static void open_socket(struct notify *notify)
{
    /* A service manager that does not read blocks the master for a second at most. */
    const struct timeval timeout = {.tv_sec = 1};
    const char *text = getenv("NOTIFY_SOCKET");
    if (text == NULL)
        return;
    if (!read_address(notify, text)) {
        log_warn("no reports to the service manager: NOTIFY_SOCKET is not the address of a UNIX socket");
        return;
    }
    notify->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    setsockopt(notify->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
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
}

void notify_done(struct notify *notify)
{
    if (notify->fd >= 0)
        close(notify->fd);
}

/* ---- reports ---- */

/* Sends variables, and the text of the status or NULL. Before a status, each variable ends with a line break. */
static void report(const struct notify *notify, const char *variables, const char *status)
{
    char *text = xasprintf("%s%s%s", variables, status ? "STATUS=" : "", status ? status : "");
    for (char *at = text + strlen(variables); (at = strchr(at, '\n')) != NULL;)
        *at = ' ';
    if (notify->fd >= 0 && sendto(notify->fd, text, strlen(text), MSG_NOSIGNAL,
                                  (const struct sockaddr *)&notify->address, notify->address_len) < 0)
        log_debug("cannot report to the service manager: %s", strerror(errno));
    free(text);
}

static void end_phase(struct notify *notify, const char *status)
{
    notify->phase = RUNNING;
    report(notify, "READY=1\n", status);
}

/* A start is complete when all workers are ready. A reload also ends if the generation is stuck. */
static bool is_over(const struct notify *notify, const struct workers *workers)
{
    return notify->phase != RUNNING &&
           (workers_is_complete(workers) || (notify->phase == RELOADING && workers_is_stuck(workers)));
}

void notify_workers(struct notify *notify, const struct workers *workers, int n_wanted)
{
    char status[96], hung[32] = "";
    if (workers_hung(workers) > 0)
        snprintf(hung, sizeof(hung), ", %d hung", workers_hung(workers));
    snprintf(status, sizeof(status), "%d of %d workers accept requests%s", workers_ready(workers), n_wanted,
             hung);
    if (is_over(notify, workers))
        end_phase(notify, status);
    else
        report(notify, "", status);
}

void notify_reloading(struct notify *notify)
{
    char variables[64];
    if (notify->phase != RUNNING)
        return;
    notify->phase = RELOADING;
    snprintf(variables, sizeof(variables), "RELOADING=1\nMONOTONIC_USEC=%lld\n",
             (long long)uv_hrtime() / 1000);
    report(notify, variables, "reloading");
}

void notify_refused(struct notify *notify, const char *why)
{
    if (notify->phase == RELOADING)
        end_phase(notify, why);
    else
        report(notify, "", why);
}

void notify_stopping(const struct notify *notify, int64_t within_ms)
{
    char variables[64];
    snprintf(variables, sizeof(variables), "STOPPING=1\nEXTEND_TIMEOUT_USEC=%lld\n",
             (long long)within_ms * 1000);
    report(notify, variables, "finishing requests");
}

void notify_alive(const struct notify *notify)
{
    report(notify, "WATCHDOG=1", NULL);
}
