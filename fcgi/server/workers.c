/* workers: see workers.h.
 *
 * A worker is a child with a control descriptor: it says there that it is ready, and hears there that we are
 * gone. One that dies is replaced: at once, or after a growing pause when it died young. One whose loop stands
 * still is killed, and so replaced. */
#include "server/workers.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "server/elders.h"
#include "server/refusal.h"
#include "lib/stats.h"
#include "server/worker.h"

enum { YOUNG_MS = 10000, PAUSE_FIRST_MS = 100, PAUSE_LAST_MS = 5000 };

/* Looks without a sign of life until a worker counts as hung; and how much longer than other workers one that
 * starts or leaves, and may have to do without its loop, is left alone. */
enum { HUNG_LOOKS = 3, PATIENCE = 3 };

/* A worker process. */
struct child {
    struct workers *workers; /* (ref) */
    struct child *prev, *next;
    int index;      /* of its socket */
    int slot;       /* of its counters */
    int generation; /* of its configuration */
    bool ready;
    bool told;     /* to leave */
    int64_t beats; /* signs of life given */
    int silent;    /* looks since the last one: not time, which also passes while all of us stand still */
    uint64_t started_ms; /* loop time */
    uv_process_t process;
    uv_pipe_t control;
    int open_handles;
};

/* The place of a worker: its socket, and what happens there while it has no worker. */
struct place {
    struct workers *workers; /* (ref) */
    int index;
    int fd; /* -1: not open */
    char *path;
    int deaths;            /* of young workers, one after the other */
    uv_timer_t timer;      /* while pausing: until the next start */
    struct refusal *pause; /* while it closes its connections, or NULL */
};

struct workers {
    struct workers_parts parts;
    char *program; /* the path of this binary: a new one there is used by the next generation */
    struct place places[WORKERS_MAX];
    int n_wanted;             /* workers of the newest generation */
    struct files_image files; /* the configuration, as workers inherit it */
    int generation;
    struct child *children;
    bool slots[STATS_SLOTS];
    bool stopping;
    int hung_looks;   /* after so many silent looks a worker is killed */
    uv_timer_t look;  /* for signs of life */
    int open_handles; /* timers */
};

static void start_worker(struct place *place);

/* ---- what is known of them ---- */

int workers_size(const struct workers *workers)
{
    int n = 0;
    const struct child *child;
    DL_COUNT(workers->children, child, n);
    return n;
}

static bool is_hung(const struct child *child)
{
    return child->silent >= HUNG_LOOKS;
}

static enum worker_state state_of(const struct child *child)
{
    if (child->told)
        return WORKER_LEAVING;
    if (!child->ready)
        return WORKER_STARTING;
    return is_hung(child) ? WORKER_HUNG : WORKER_READY_TO_SERVE;
}

static int count(const struct workers *workers, enum worker_state state)
{
    int n = 0;
    const struct child *child;
    DL_FOREACH(workers->children, child)
    n += state_of(child) == state;
    return n;
}

int workers_ready(const struct workers *workers)
{
    return count(workers, WORKER_READY_TO_SERVE);
}

int workers_hung(const struct workers *workers)
{
    return count(workers, WORKER_HUNG);
}

void workers_look(const struct workers *workers, struct health *health)
{
    const struct child *child;
    health->workers_ready = workers_ready(workers);
    health->workers_hung = workers_hung(workers);
    DL_FOREACH(workers->children, child)
    {
        if (health->n_workers == HEALTH_WORKERS)
            return;
        health->workers[health->n_workers++] =
            (struct worker_health){child->index, child->process.pid, child->slot, state_of(child),
                                   (int64_t)(uv_now(workers->parts.loop) - child->started_ms)};
    }
}

bool workers_is_complete(const struct workers *workers)
{
    int n = 0;
    const struct child *child;
    DL_FOREACH(workers->children, child)
    n += child->ready && !child->told && child->generation == workers->generation;
    return n >= workers->n_wanted;
}

bool workers_is_stuck(const struct workers *workers)
{
    bool deaths = false;
    for (int i = 0; i < workers->n_wanted; i++)
        deaths |= workers->places[i].deaths > 0;
    return deaths && !workers_is_complete(workers);
}

const char *workers_program(const struct workers *workers)
{
    return workers->program;
}

void workers_name(const struct workers *workers, struct buf *list)
{
    const struct child *child;
    DL_FOREACH(workers->children, child)
    {
        uv_os_fd_t control;
        if (uv_fileno((const uv_handle_t *)&child->control, &control) == 0)
            elders_name(list, child->process.pid, control);
    }
}

/* ---- sockets ---- */

static bool open_place(struct place *place, const struct conf *conf, char **ret_error)
{
    if (place->fd >= 0)
        return true;
    place->path = xasprintf("%s/worker-%d.sock", conf->socket_dir, place->index);
    place->fd = sockets_listen(place->workers->parts.sockets, place->path, conf->socket_group, ret_error);
    if (place->fd >= 0)
        return true;
    free(place->path);
    place->path = NULL;
    return false;
}

static void close_place(struct place *place)
{
    if (place->fd < 0)
        return;
    sockets_remove(place->workers->parts.sockets, place->path);
    close(place->fd);
    free(place->path);
    place->path = NULL;
    place->fd = -1;
}

int workers_open_sockets(struct workers *workers, const struct conf *conf, char **ret_error)
{
    for (int i = 0; i < conf->workers; i++) {
        if (!open_place(&workers->places[i], conf, ret_error))
            return -1;
    }
    return 0;
}

/* ---- pausing ---- */

static void end_pause(struct place *place)
{
    if (place->pause == NULL)
        return;
    uv_timer_stop(&place->timer);
    refusal_free(place->pause);
    place->pause = NULL;
}

static void on_pause_over(uv_timer_t *timer)
{
    struct place *place = CONTAINER_OF(timer, struct place, timer);
    end_pause(place);
    start_worker(place);
}

/* A worker of an older configuration may still be at work there: then nobody is sent elsewhere. */
static bool is_served(const struct place *place)
{
    const struct child *child;
    DL_FOREACH(place->workers->children, child)
    {
        if (child->index == place->index && child->ready && !child->told)
            return true;
    }
    return false;
}

static void pause_place(struct place *place)
{
    uint64_t pause_ms = PAUSE_FIRST_MS;
    for (int i = 2; i < place->deaths && pause_ms < PAUSE_LAST_MS; i++)
        pause_ms *= 2;
    log_warn("worker %d starts again in %d ms", place->index, (int)pause_ms);
    place->pause = refusal_new(place->workers->parts.loop, place->fd, !is_served(place));
    uv_timer_start(&place->timer, on_pause_over, pause_ms, 0);
}

/* ---- workers ---- */

static void tell_to_leave(struct child *child)
{
    if (!child->told)
        uv_process_kill(&child->process, SIGTERM);
    child->told = true;
}

/* Once every worker of the newest generation is ready, the older ones may go, and the sockets that nobody
 * wants. */
static void retire_old_workers(struct workers *workers)
{
    struct child *child;
    DL_FOREACH(workers->children, child)
    {
        if (child->generation != workers->generation)
            tell_to_leave(child);
    }
    for (int i = workers->n_wanted; i < WORKERS_MAX; i++)
        close_place(&workers->places[i]);
}

static void on_child_closed(uv_handle_t *handle)
{
    struct child *child = handle->data;
    if (--child->open_handles == 0)
        free(child);
}

static void on_control_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct child *child = stream->data;
    if (n < 0)
        uv_read_stop(stream); /* its end is reported by on_exit */
    if (n <= 0 || buf->base[0] != WORKER_READY || child->ready)
        return;
    struct workers *workers = child->workers;
    child->ready = true;
    if (workers->stopping || !workers_is_complete(workers))
        return;
    retire_old_workers(workers);
    workers->parts.on_change(workers->parts.ctx);
}

static void on_control_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char byte[16]; /* one read at a time */
    (void)handle, (void)suggested;
    *buf = uv_buf_init(byte, sizeof(byte));
}

static void replace(struct child *child, int64_t status, int signal_number)
{
    struct workers *workers = child->workers;
    struct place *place = &workers->places[child->index];
    stat_inc(STAT_WORKER_DEATHS);
    if (signal_number != 0)
        log_error("worker %d ended by signal %d", child->index, signal_number);
    else
        log_error("worker %d ended with status %d", child->index, (int)status);
    if (child->generation != workers->generation)
        return; /* one that was about to go */
    bool young = uv_now(workers->parts.loop) - child->started_ms < YOUNG_MS;
    place->deaths = young ? place->deaths + 1 : 0;
    if (place->deaths > 1)
        pause_place(place);
    else
        start_worker(place);
}

static void on_exit_of_child(uv_process_t *process, int64_t status, int signal_number)
{
    struct child *child = process->data;
    struct workers *workers = child->workers;
    stats_fold(child->slot);
    workers->slots[child->slot] = false;
    DL_DELETE(workers->children, child);
    uv_close((uv_handle_t *)&child->process, on_child_closed);
    uv_close((uv_handle_t *)&child->control, on_child_closed);
    if (!workers->stopping && !child->told)
        replace(child, status, signal_number);
    workers->parts.on_change(workers->parts.ctx);
}

/* ---- signs of life ---- */

static void kill_hung(struct child *child)
{
    log_error("worker %d has stood still for %d s: killed", child->index,
              child->silent * WORKER_BEAT_MS / 1000);
    stat_inc(STAT_WORKER_HANGS);
    uv_process_kill(&child->process, SIGKILL);
}

/* Whether it has begun or ceased to be hung. */
static bool look_at(struct child *child)
{
    bool was_hung = is_hung(child), at_work = child->ready && !child->told;
    int64_t beats = stats_beats(child->slot);
    child->silent = beats == child->beats ? child->silent + 1 : 0;
    child->beats = beats;
    if (child->silent > 0 && child->silent % (child->workers->hung_looks * (at_work ? 1 : PATIENCE)) == 0)
        kill_hung(child);
    return is_hung(child) != was_hung;
}

static void on_look(uv_timer_t *timer)
{
    struct workers *workers = CONTAINER_OF(timer, struct workers, look);
    struct child *child;
    bool changed = false;
    DL_FOREACH(workers->children, child)
    changed |= look_at(child);
    if (changed)
        workers->parts.on_change(workers->parts.ctx);
}

/* ---- their start ---- */

static int take_slot(struct workers *workers)
{
    for (int slot = STATS_MASTER_SLOT + 1; slot < STATS_SLOTS; slot++) {
        if (!workers->slots[slot]) {
            workers->slots[slot] = true;
            return slot;
        }
    }
    return -1;
}

static int spawn(struct child *child)
{
    struct workers *workers = child->workers;
    char index[16], slot[16];
    snprintf(index, sizeof(index), "%d", child->index);
    snprintf(slot, sizeof(slot), "%d", child->slot);
    char *args[] = {workers->program,
                    (char[]){"--worker"},
                    index,
                    slot,
                    (char *)(uintptr_t)workers->parts.conf_path,
                    NULL};
    uv_stdio_container_t stdio[WORKER_FD_COUNT] = {
        [STDIN_FILENO] = {.flags = UV_IGNORE},
        [STDOUT_FILENO] = {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        [STDERR_FILENO] = {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        [WORKER_FD_CONTROL] = {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE,
                               .data.stream = (uv_stream_t *)&child->control},
        [WORKER_FD_LISTEN] = {.flags = UV_INHERIT_FD, .data.fd = workers->places[child->index].fd},
        [WORKER_FD_STATS] = {.flags = UV_INHERIT_FD, .data.fd = workers->parts.stats_fd},
        [WORKER_FD_FILES] = {.flags = UV_INHERIT_FD, .data.fd = workers->files.fd}};
    uv_process_options_t options = {.exit_cb = on_exit_of_child,
                                    .file = workers->program,
                                    .args = args,
                                    .stdio_count = WORKER_FD_COUNT,
                                    .stdio = stdio};
    return uv_spawn(workers->parts.loop, &child->process, &options);
}

static void start_worker(struct place *place)
{
    struct workers *workers = place->workers;
    int slot = take_slot(workers);
    if (slot < 0)
        return pause_place(place); /* more workers leaving than there are slots */
    struct child *child = xcalloc(1, sizeof(*child));
    *child = (struct child){.workers = workers,
                            .index = place->index,
                            .slot = slot,
                            .generation = workers->generation,
                            .started_ms = uv_now(workers->parts.loop),
                            .open_handles = 2};
    child->process.data = child->control.data = child;
    uv_pipe_init(workers->parts.loop, &child->control, 0);
    int error = spawn(child);
    if (error < 0) {
        log_error("cannot start worker %d: %s", place->index, uv_strerror(error));
        workers->slots[slot] = false;
        place->deaths++;
        uv_close((uv_handle_t *)&child->process, on_child_closed);
        uv_close((uv_handle_t *)&child->control, on_child_closed);
        return pause_place(place);
    }
    DL_APPEND(workers->children, child);
    stat_inc(STAT_WORKER_STARTS);
    uv_read_start((uv_stream_t *)&child->control, on_control_alloc, on_control_read);
}

void workers_start(struct workers *workers, const struct conf *conf, struct files_image files)
{
    files_image_done(&workers->files);
    workers->files = files;
    workers->n_wanted = (int)conf->workers;
    workers->hung_looks = (int)(conf->hung_after_ms / WORKER_BEAT_MS);
    workers->generation++;
    uv_timer_start(&workers->look, on_look, WORKER_BEAT_MS, WORKER_BEAT_MS);
    for (int i = 0; i < WORKERS_MAX; i++) {
        end_pause(&workers->places[i]);
        workers->places[i].deaths = 0;
        if (i < workers->n_wanted)
            start_worker(&workers->places[i]);
    }
}

void workers_stop(struct workers *workers)
{
    struct child *child;
    workers->stopping = true;
    DL_FOREACH(workers->children, child)
    tell_to_leave(child);
    for (int i = 0; i < WORKERS_MAX; i++)
        end_pause(&workers->places[i]);
}

void workers_kill(struct workers *workers)
{
    struct child *child;
    DL_FOREACH(workers->children, child)
    {
        log_error("worker %d does not leave: killed", child->index);
        uv_process_kill(&child->process, SIGKILL);
    }
}

/* ---- the workers ---- */

struct workers *workers_new(struct workers_parts parts)
{
    struct workers *workers = xcalloc(1, sizeof(*workers));
    char program[4096];
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    workers->parts = parts;
    workers->program = xstrndup(program, len > 0 ? (size_t)len : 0);
    workers->files.fd = -1;
    for (int i = 0; i < WORKERS_MAX; i++) {
        workers->places[i] = (struct place){.workers = workers, .index = i, .fd = -1};
        uv_timer_init(parts.loop, &workers->places[i].timer);
        workers->places[i].timer.data = workers;
    }
    uv_timer_init(parts.loop, &workers->look);
    workers->look.data = workers;
    workers->open_handles = WORKERS_MAX + 1;
    return workers;
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct workers *workers = handle->data;
    if (--workers->open_handles > 0)
        return;
    free(workers->program);
    free(workers);
}

void workers_free(struct workers *workers)
{
    if (workers == NULL)
        return;
    files_image_done(&workers->files);
    for (int i = 0; i < WORKERS_MAX; i++) {
        end_pause(&workers->places[i]);
        close_place(&workers->places[i]);
        uv_close((uv_handle_t *)&workers->places[i].timer, on_timer_closed);
    }
    uv_close((uv_handle_t *)&workers->look, on_timer_closed);
}
