/* master: see master.h.
 *
 *     start:   sockets -> page of counters -> a generation of workers
 *     HUP:     new configuration -> a new generation on the same sockets -> once all of it is ready, TERM to the old
 *     a death: its counters are kept, and another one starts: at once, or after a growing pause when it died young
 *     TERM:    TERM to all -> when the last is gone, the sockets go, and so do we
 *
 * A worker is a child with a control descriptor: it says there that it is ready, and hears there that we are gone. */
#include "master.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "sockets.h"
#include "stats.h"
#include "status.h"
#include "worker.h"

enum { WORKERS_MAX = 64, STATUS_CONNECTIONS = 256, YOUNG_MS = 10000, PAUSE_FIRST_MS = 100, PAUSE_LAST_MS = 5000 };
enum { KILL_GRACE_MS = 2000 };

struct master;

/* A worker process. */
struct child {
    struct master *master; /* (ref) */
    struct child *prev, *next;
    int index;      /* of its socket */
    int slot;       /* of its counters */
    int generation; /* of its configuration */
    bool ready;
    bool told;           /* to leave */
    uint64_t started_ms; /* loop time */
    uv_process_t process;
    uv_pipe_t control;
    int open_handles;
};

/* The place of a worker: its socket, and what happens there while it has no worker. */
struct place {
    struct master *master; /* (ref) */
    int index;
    int fd; /* -1: not open */
    char *path;
    uint64_t pause_ms; /* before the next start */
    uv_timer_t timer;
    uv_poll_t refuse; /* while pausing: connections are closed, so that the web server goes elsewhere */
    bool pausing;
};

struct master {
    uv_loop_t loop;
    const char *conf_path; /* (ref) */
    char *program;         /* the path of this binary: a new one there is used at the next reload */
    struct conf *conf;
    int files_fd; /* the configuration, as workers inherit it */
    int stats_fd;
    struct place places[WORKERS_MAX];
    char *status_path;
    struct fcgi_server *status;
    struct child *children;
    bool slots[STATS_SLOTS];
    int generation;
    bool reload_again; /* HUP came while a reload was under way */
    bool stopping;
    uv_signal_t hup, terminate, interrupt;
    uv_timer_t kill_timer;
};

static void start_worker(struct place *place);

/* ---- what is known of the workers ---- */

static int count_ready(const struct master *m, int generation)
{
    int n = 0;
    const struct child *child;
    DL_FOREACH(m->children, child)
        n += child->ready && !child->told && (generation == 0 || child->generation == generation);
    return n;
}

static bool reloading(const struct master *m)
{
    return count_ready(m, m->generation) < m->conf->workers;
}

static void on_status_request(void *ctx, struct fcgi_request *client)
{
    const struct master *m = ctx;
    struct health health = {.workers = (int)m->conf->workers, .workers_ready = count_ready(m, 0)};
    status_serve(&health, client);
}

/* ---- sockets ---- */

static bool open_place(struct master *m, struct place *place, char **ret_error)
{
    if (place->fd >= 0)
        return true;
    place->path = xasprintf("%s/worker-%d.sock", m->conf->socket_dir, place->index);
    place->fd = socket_listen(place->path, m->conf->socket_group, ret_error);
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
    unlink(place->path);
    close(place->fd);
    free(place->path);
    place->path = NULL;
    place->fd = -1;
}

static bool open_places(struct master *m, char **ret_error)
{
    for (int i = 0; i < m->conf->workers; i++) {
        if (!open_place(m, &m->places[i], ret_error))
            return false;
    }
    return true;
}

/* ---- pausing ---- */

static void on_refuse(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct place *place = CONTAINER_OF(poll, struct place, refuse);
    int fd = accept4(place->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
}

static void end_pause(struct place *place)
{
    if (!place->pausing)
        return;
    place->pausing = false;
    uv_timer_stop(&place->timer);
    uv_poll_stop(&place->refuse);
    uv_close((uv_handle_t *)&place->refuse, NULL);
}

static void on_pause_over(uv_timer_t *timer)
{
    struct place *place = CONTAINER_OF(timer, struct place, timer);
    if (place->pausing && uv_is_closing((uv_handle_t *)&place->refuse))
        return;
    end_pause(place);
    start_worker(place);
}

static void pause_place(struct place *place)
{
    struct master *m = place->master;
    if (place->pausing)
        return;
    place->pausing = true;
    place->pause_ms = place->pause_ms == 0                    ? PAUSE_FIRST_MS
                      : place->pause_ms * 2 < PAUSE_LAST_MS ? place->pause_ms * 2
                                                              : PAUSE_LAST_MS;
    log_warn("worker %d starts again in %d ms", place->index, (int)place->pause_ms);
    uv_timer_start(&place->timer, on_pause_over, place->pause_ms, 0);
    uv_poll_init(&m->loop, &place->refuse, place->fd);
    uv_poll_start(&place->refuse, UV_READABLE, on_refuse);
}

/* ---- workers ---- */

static void tell_to_leave(struct child *child)
{
    if (!child->told)
        uv_process_kill(&child->process, SIGTERM);
    child->told = true;
}

static void finish_stop(struct master *m);
static void reload(struct master *m);

/* Once every worker of the newest generation is ready, the older ones may go. */
static void retire_old_workers(struct master *m)
{
    if (reloading(m))
        return;
    struct child *child;
    DL_FOREACH(m->children, child)
    {
        if (child->generation != m->generation)
            tell_to_leave(child);
    }
    for (int i = (int)m->conf->workers; i < WORKERS_MAX; i++)
        close_place(&m->places[i]);
    if (m->reload_again) {
        m->reload_again = false;
        reload(m);
    }
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
    child->ready = true;
    child->master->places[child->index].pause_ms = 0;
    retire_old_workers(child->master);
}

static void on_control_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    static char byte[16]; /* one read at a time */
    (void)handle, (void)suggested;
    *buf = uv_buf_init(byte, sizeof(byte));
}

static void replace(struct child *child, int64_t status, int signal_number)
{
    struct master *m = child->master;
    struct place *place = &m->places[child->index];
    stat_inc(STAT_WORKER_DEATHS);
    if (signal_number != 0)
        log_error("worker %d ended by signal %d", child->index, signal_number);
    else
        log_error("worker %d ended with status %d", child->index, (int)status);
    if (child->generation != m->generation)
        return; /* one that was about to go */
    bool young = !child->ready || uv_now(&m->loop) - child->started_ms < YOUNG_MS;
    if (young && place->pause_ms > 0)
        pause_place(place);
    else
        start_worker(place);
    if (young && !place->pausing)
        place->pause_ms = 1; /* a second early death pauses */
}

static void on_exit_of_child(uv_process_t *process, int64_t status, int signal_number)
{
    struct child *child = process->data;
    struct master *m = child->master;
    stats_fold(child->slot);
    m->slots[child->slot] = false;
    DL_DELETE(m->children, child);
    uv_close((uv_handle_t *)&child->process, on_child_closed);
    uv_close((uv_handle_t *)&child->control, on_child_closed);
    if (m->stopping)
        finish_stop(m);
    else if (!child->told)
        replace(child, status, signal_number);
}

static int take_slot(struct master *m)
{
    for (int slot = STATS_MASTER_SLOT + 1; slot < STATS_SLOTS; slot++) {
        if (!m->slots[slot]) {
            m->slots[slot] = true;
            return slot;
        }
    }
    return -1;
}

static int spawn(struct child *child)
{
    struct master *m = child->master;
    char index[16], slot[16];
    snprintf(index, sizeof(index), "%d", child->index);
    snprintf(slot, sizeof(slot), "%d", child->slot);
    char *args[] = {m->program, (char[]){"--worker"}, index, slot, (char *)(uintptr_t)m->conf_path, NULL};
    uv_stdio_container_t stdio[WORKER_FD_COUNT] = {
        [STDIN_FILENO] = {.flags = UV_IGNORE},
        [STDOUT_FILENO] = {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        [STDERR_FILENO] = {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
        [WORKER_FD_CONTROL] = {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE,
                               .data.stream = (uv_stream_t *)&child->control},
        [WORKER_FD_LISTEN] = {.flags = UV_INHERIT_FD, .data.fd = m->places[child->index].fd},
        [WORKER_FD_STATS] = {.flags = UV_INHERIT_FD, .data.fd = m->stats_fd},
        [WORKER_FD_FILES] = {.flags = UV_INHERIT_FD, .data.fd = m->files_fd}};
    uv_process_options_t options = {.exit_cb = on_exit_of_child,
                                    .file = m->program,
                                    .args = args,
                                    .stdio_count = WORKER_FD_COUNT,
                                    .stdio = stdio};
    return uv_spawn(&m->loop, &child->process, &options);
}

static void start_worker(struct place *place)
{
    struct master *m = place->master;
    int slot = take_slot(m);
    if (slot < 0)
        return pause_place(place); /* more workers leaving than there are slots */
    struct child *child = xcalloc(1, sizeof(*child));
    *child = (struct child){.master = m,
                            .index = place->index,
                            .slot = slot,
                            .generation = m->generation,
                            .started_ms = uv_now(&m->loop),
                            .open_handles = 2};
    child->process.data = child->control.data = child;
    uv_pipe_init(&m->loop, &child->control, 0);
    int error = spawn(child);
    if (error < 0) {
        log_error("cannot start worker %d: %s", place->index, uv_strerror(error));
        m->slots[slot] = false;
        uv_close((uv_handle_t *)&child->process, on_child_closed);
        uv_close((uv_handle_t *)&child->control, on_child_closed);
        return pause_place(place);
    }
    DL_APPEND(m->children, child);
    stat_inc(STAT_WORKER_STARTS);
    uv_read_start((uv_stream_t *)&child->control, on_control_alloc, on_control_read);
}

static void start_generation(struct master *m)
{
    m->generation++;
    for (int i = 0; i < m->conf->workers; i++) {
        end_pause(&m->places[i]);
        start_worker(&m->places[i]);
    }
}

/* ---- reload ---- */

/* The new configuration with everything it names, ready to hand over; NULL with *ret_error. */
static struct conf *load_again(struct master *m, int *ret_files_fd, char **ret_error)
{
    struct conf *conf = conf_load(m->conf_path, files_new(), ret_error);
    if (conf == NULL)
        return NULL;
    if (strcmp(conf->socket_dir, m->conf->socket_dir) != 0) {
        *ret_error = xstrdup("\"socket_dir\" cannot change without a restart");
    } else {
        *ret_files_fd = files_seal(conf->files);
        if (*ret_files_fd >= 0)
            return conf;
        *ret_error = xasprintf("the files cannot be handed over: %s", strerror(-*ret_files_fd));
    }
    conf_free(conf);
    return NULL;
}

static void reload(struct master *m)
{
    int files_fd;
    char *error = NULL;
    struct conf *conf = load_again(m, &files_fd, &error);
    if (conf != NULL) {
        conf_free(m->conf);
        m->conf = conf;
        close(m->files_fd);
        m->files_fd = files_fd;
        log_setup((enum log_level)conf->log_level, "master");
        if (open_places(m, &error)) {
            stat_inc(STAT_RELOADS);
            log_info("configuration reloaded: %d workers", (int)conf->workers);
            start_generation(m);
            return;
        }
    }
    stat_inc(STAT_RELOADS_REFUSED);
    log_error("not reloaded, the old configuration stays in force: %s", error);
    free(error);
}

static void on_hup(uv_signal_t *signal, int number)
{
    (void)number;
    struct master *m = CONTAINER_OF(signal, struct master, hup);
    if (m->stopping)
        return;
    if (reloading(m))
        m->reload_again = true;
    else
        reload(m);
}

/* ---- stopping ---- */

static void finish_stop(struct master *m)
{
    if (m->children == NULL)
        uv_stop(&m->loop);
}

static void on_kill_time(uv_timer_t *timer)
{
    struct master *m = CONTAINER_OF(timer, struct master, kill_timer);
    struct child *child;
    DL_FOREACH(m->children, child)
    {
        log_error("worker %d does not leave: killed", child->index);
        uv_process_kill(&child->process, SIGKILL);
    }
}

static void on_terminate(uv_signal_t *signal, int number)
{
    struct master *m = signal->data;
    if (m->stopping)
        return;
    log_info("stopping: %s", number == SIGINT ? "interrupted" : "told to");
    m->stopping = true;
    struct child *child;
    DL_FOREACH(m->children, child)
        tell_to_leave(child);
    for (int i = 0; i < WORKERS_MAX; i++)
        end_pause(&m->places[i]);
    uv_timer_start(&m->kill_timer, on_kill_time, (uint64_t)m->conf->drain_ms + KILL_GRACE_MS, 0);
    finish_stop(m);
}

/* ---- the whole ---- */

static void on_status_drained(void *ctx)
{
    (void)ctx;
}

static bool open_status(struct master *m, char **ret_error)
{
    m->status_path = xasprintf("%s/status.sock", m->conf->socket_dir);
    int fd = socket_listen(m->status_path, m->conf->socket_group, ret_error);
    if (fd < 0) {
        free(m->status_path);
        m->status_path = NULL;
        return false;
    }
    struct fcgi_handlers handlers = {.on_request = on_status_request, .on_drained = on_status_drained, .ctx = m};
    m->status = fcgi_listen(&m->loop, fd, STATUS_CONNECTIONS, handlers);
    return true;
}

static bool open_everything(struct master *m, char **ret_error)
{
    if (socket_dir_make(m->conf->socket_dir, ret_error) < 0)
        return false;
    m->stats_fd = stats_create();
    m->files_fd = files_seal(m->conf->files);
    if (m->stats_fd < 0 || stats_attach(m->stats_fd, STATS_MASTER_SLOT) < 0 || m->files_fd < 0) {
        *ret_error = xstrdup("memory for the workers cannot be made");
        return false;
    }
    return open_status(m, ret_error) && open_places(m, ret_error);
}

static void init(struct master *m)
{
    char program[4096];
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    m->program = xstrndup(program, len > 0 ? (size_t)len : 0);
    uv_loop_init(&m->loop);
    for (int i = 0; i < WORKERS_MAX; i++) {
        m->places[i] = (struct place){.master = m, .index = i, .fd = -1};
        uv_timer_init(&m->loop, &m->places[i].timer);
    }
    uv_signal_init(&m->loop, &m->hup);
    uv_signal_init(&m->loop, &m->terminate);
    uv_signal_init(&m->loop, &m->interrupt);
    m->terminate.data = m->interrupt.data = m;
    uv_timer_init(&m->loop, &m->kill_timer);
}

static void close_everything(struct master *m)
{
    for (int i = 0; i < WORKERS_MAX; i++) {
        end_pause(&m->places[i]);
        close_place(&m->places[i]);
        uv_close((uv_handle_t *)&m->places[i].timer, NULL);
    }
    if (m->status != NULL) {
        unlink(m->status_path);
        fcgi_free(m->status);
    }
    uv_close((uv_handle_t *)&m->hup, NULL);
    uv_close((uv_handle_t *)&m->terminate, NULL);
    uv_close((uv_handle_t *)&m->interrupt, NULL);
    uv_close((uv_handle_t *)&m->kill_timer, NULL);
    uv_run(&m->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&m->loop) != 0)
        abort(); /* a handle that nobody closed */
    free(m->status_path);
    free(m->program);
    conf_free(m->conf);
}

/* The keys are in memory here, too: for the next worker that has to be started. */
static void protect_process(void)
{
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
    signal(SIGPIPE, SIG_IGN);
}

int master_main(const char *path, struct conf *conf)
{
    static struct master master;
    struct master *m = &master;
    char *error = NULL;
    m->conf_path = path;
    m->conf = conf;
    log_setup((enum log_level)conf->log_level, "master");
    protect_process();
    init(m);
    bool open = open_everything(m, &error);
    if (open) {
        /* After fcgi_listen: libfcgi would put handlers of its own in place. */
        uv_signal_start(&m->hup, on_hup, SIGHUP);
        uv_signal_start(&m->terminate, on_terminate, SIGTERM);
        uv_signal_start(&m->interrupt, on_terminate, SIGINT);
        log_info("started: %d workers on %s", (int)conf->workers, conf->socket_dir);
        start_generation(m);
        uv_run(&m->loop, UV_RUN_DEFAULT);
        log_info("stopped");
    } else {
        log_error("%s", error);
        free(error);
    }
    close_everything(m);
    return open ? EXIT_SUCCESS : EXIT_FAILURE;
}
