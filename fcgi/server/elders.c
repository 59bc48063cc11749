/* elders: see elders.h. */
#include "server/elders.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utlist.h>

#include "lib/log.h"

enum { LOOK_MS = 20 };

struct elder {
    struct elder *next;
    pid_t pid;
    int control; /* while it is open the worker knows that it has a master */
};

struct elders {
    struct elder *first;
    bool told;           /* to leave, */
    uint64_t kill_at_ms; /* until then; loop time; 0: they were killed */
    uv_timer_t timer;
    void (*on_change)(void *ctx);
    void *ctx;
};

/* Only what is a child of ours, and a descriptor, is taken from the list. */
static void take(struct elders *elders, const char *entry)
{
    const char *colon = strchr(entry, ':');
    int64_t pid, fd;
    char *pid_text = colon ? xstrndup(entry, (size_t)(colon - entry)) : NULL;
    bool good = colon != NULL && parse_int(pid_text, &pid) == 0 && parse_int(colon + 1, &fd) == 0 &&
                pid > 1 && fd > STDERR_FILENO && fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0 &&
                waitpid((pid_t)pid, NULL, WNOHANG) == 0;
    free(pid_text);
    if (!good)
        return;
    struct elder *elder = xcalloc(1, sizeof(*elder));
    *elder = (struct elder){.pid = (pid_t)pid, .control = (int)fd};
    LL_PREPEND(elders->first, elder);
}

static void forget(struct elders *elders, struct elder *elder)
{
    LL_DELETE(elders->first, elder);
    close(elder->control);
    free(elder);
}

static void on_look(uv_timer_t *timer)
{
    struct elders *elders = CONTAINER_OF(timer, struct elders, timer);
    struct elder *elder, *next;
    bool changed = false;
    LL_FOREACH_SAFE(elders->first, elder, next)
    {
        pid_t ended = waitpid(elder->pid, NULL, WNOHANG);
        if (ended == 0)
            continue;
        forget(elders, elder);
        changed = true;
    }
    if (elders->told && elders->kill_at_ms != 0 && uv_now(timer->loop) >= elders->kill_at_ms)
        elders_kill(elders);
    if (elders->first == NULL)
        uv_timer_stop(timer);
    if (changed)
        elders->on_change(elders->ctx);
}

struct elders *elders_new(uv_loop_t *loop, const char *list, void (*on_change)(void *ctx), void *ctx)
{
    struct elders *elders = xcalloc(1, sizeof(*elders));
    char *copy = xstrdup(list ? list : ""), *rest = copy, *entry;
    *elders = (struct elders){.on_change = on_change, .ctx = ctx};
    while ((entry = strsep(&rest, ",")) != NULL)
        take(elders, entry);
    free(copy);
    uv_timer_init(loop, &elders->timer);
    if (elders->first != NULL)
        uv_timer_start(&elders->timer, on_look, LOOK_MS, LOOK_MS);
    return elders;
}

static void on_closed(uv_handle_t *handle)
{
    free(CONTAINER_OF((uv_timer_t *)handle, struct elders, timer));
}

void elders_free(struct elders *elders)
{
    if (elders == NULL)
        return;
    while (elders->first != NULL)
        forget(elders, elders->first);
    uv_close((uv_handle_t *)&elders->timer, on_closed);
}

void elders_name(struct buf *list, int pid, int control_fd)
{
    fcntl(control_fd, F_SETFD, 0);
    buf_addf(list, "%s%d:%d", list->len > 0 ? "," : "", pid, control_fd);
}

void elders_unname(const struct buf *list)
{
    const char *at = list->len > 0 ? list->data : "";
    while ((at = strchr(at, ':')) != NULL)
        fcntl(atoi(++at), F_SETFD, FD_CLOEXEC);
}

void elders_name_all(struct elders *elders, struct buf *list)
{
    const struct elder *elder;
    LL_FOREACH(elders->first, elder)
    elders_name(list, elder->pid, elder->control);
}

size_t elders_count(const struct elders *elders)
{
    size_t n = 0;
    const struct elder *elder;
    LL_COUNT(elders->first, elder, n);
    return n;
}

static void signal_all(const struct elders *elders, int number)
{
    const struct elder *elder;
    LL_FOREACH(elders->first, elder)
    kill(elder->pid, number);
}

void elders_retire(struct elders *elders, int64_t within_ms)
{
    if (elders->told)
        return;
    elders->told = true;
    elders->kill_at_ms = uv_now(elders->timer.loop) + (uint64_t)within_ms;
    signal_all(elders, SIGTERM);
}

void elders_kill(struct elders *elders)
{
    if (elders->first != NULL)
        log_error("workers of the program before the upgrade do not leave: killed");
    elders->kill_at_ms = 0;
    signal_all(elders, SIGKILL);
}
