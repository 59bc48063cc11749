/* workers: see workers.h.
 *
 * A worker is a child process with a control socket, on which it reports that it is ready and detects that
 * the master has exited. A worker that dies is replaced: at once, or after a growing pause if it died soon
 * after its start. A worker whose loop is blocked is killed, and so replaced. */
#include "server/workers.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utlist.h>

#include "lib/backoff.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "server/worker.h"

enum { YOUNG_MS = 10000, PAUSE_FIRST_MS = 100, PAUSE_MAX_MS = 5000, REFUSE_EVERY_MS = 10 };

/* Missed heartbeats before a worker counts as hung; and by which factor more of them are tolerated before a
 * worker is killed that is starting or has closed its control socket, because it may not beat for long. */
enum { HUNG_BEATS = 3, PATIENCE = 3 };

enum { SPAWN_FDS_MAX = 8 };

/* The place of the status server, after those of the workers. */
enum { STATUS_SERVER = WORKERS_MAX, PLACES };

/* Environment variable for the next program in an upgrade. */
static const char handed_over[] = "TASKPROXY_WORKERS";

/* A worker, or the status server. */
struct child {
    struct workers *workers; /* (ref) */
    struct child *prev, *next;
    int pid;
    int index;      /* of its socket */
    int slot;       /* of its counters; -1: unknown, so its heartbeats are, too */
    int generation; /* of its configuration; 0: adopted */
    bool ready;
    bool leaving;    /* it was sent TERM */
    bool finished;   /* it serves no request any more, and is about to exit */
    int drain_beats; /* checks until a leaving worker is killed; 0: unknown */
    int64_t beats;   /* its heartbeats at the last check */
    int missed;      /* heartbeats missed in a row; not a time, which would include a suspended machine's */
    uint64_t started_ms; /* loop time, which the next program continues */
    int control;         /* descriptor; while it is open, the worker has a master */
    uv_poll_t poll;      /* of the control descriptor */
};

/* The place of a worker: its socket, and the pause before its next worker. */
struct place {
    struct workers *workers; /* (ref) */
    int index;
    char name[24]; /* of its process, for the log */
    int fd;        /* (ref) the listening socket; -1: none yet */
    int deaths;    /* of workers soon after their start, in a row */
    struct backoff pause;
    uint64_t resume_at_ms; /* the end of the pause, loop time */
    uv_timer_t timer;      /* active in the pause */
};

struct workers {
    struct workers_parts parts;
    char *program; /* the path of this binary; new workers execute the file that is installed there */
    struct place places[PLACES];
    const struct conf *conf;  /* (ref) of the newest generation */
    struct files_image files; /* the configuration, as workers inherit it */
    int generation;
    struct child *children;
    bool stopping;
    int drain_beats;        /* a worker that takes longer to leave is killed */
    uv_timer_t check_timer; /* checks all workers, once a heartbeat */
    int open_handles;
};

static void start_worker(struct place *place);

/* ---- queries ---- */

static bool is_worker(const struct child *child)
{
    return child->index < STATUS_SERVER;
}

static const char *name_of(const struct child *child)
{
    return child->workers->places[child->index].name;
}

bool workers_is_empty(const struct workers *workers)
{
    struct worker_info first;
    return !workers_info(workers, 0, &first);
}

static bool is_hung(const struct child *child)
{
    return child->missed >= HUNG_BEATS;
}

static enum worker_state state_of(const struct child *child)
{
    if (child->leaving)
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
    n += is_worker(child) && state_of(child) == state;
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

bool workers_info(const struct workers *workers, size_t i, struct worker_info *ret)
{
    const struct child *child = workers->children;
    while (child != NULL && (!is_worker(child) || i-- > 0))
        child = child->next;
    if (child == NULL)
        return false;
    *ret = (struct worker_info){.index = child->index,
                                .pid = child->pid,
                                .slot = child->slot,
                                .state = state_of(child),
                                .uptime_ms = (int64_t)(uv_now(workers->parts.loop) - child->started_ms)};
    return true;
}

bool workers_is_complete(const struct workers *workers)
{
    int n = 0;
    const struct child *child;
    DL_FOREACH(workers->children, child)
    n += is_worker(child) && child->ready && !child->leaving && child->generation == workers->generation;
    return n >= workers->conf->workers;
}

bool workers_is_stuck(const struct workers *workers)
{
    bool deaths = false;
    for (int i = 0; i < workers->conf->workers; i++)
        deaths |= workers->places[i].deaths > 0;
    return deaths && !workers_is_complete(workers);
}

const char *workers_program(const struct workers *workers)
{
    return workers->program;
}

/* ---- sockets ---- */

static bool is_wanted(int index, const struct conf *conf)
{
    return index < conf->workers || index == STATUS_SERVER;
}

int workers_open_sockets(struct workers *workers, const struct conf *conf, char **ret_error)
{
    for (int i = PLACES; i-- > 0;) { /* the status server's first: a running master has it, too */
        if (!is_wanted(i, conf))
            continue;
        char *path = i == STATUS_SERVER ? xasprintf("%s/status.sock", conf->socket_dir)
                                        : xasprintf("%s/worker-%d.sock", conf->socket_dir, i);
        int fd = sockets_listen(workers->parts.sockets, path, conf->socket_group, ret_error);
        free(path);
        if (fd < 0)
            return -1;
        workers->places[i].fd = fd;
    }
    return 0;
}

/* ---- pauses ---- */

/* Whether a worker of any generation accepts connections there. */
static bool is_served(const struct place *place)
{
    const struct child *child;
    DL_FOREACH(place->workers->children, child)
    {
        if (child->index == place->index && child->ready && !child->leaving)
            return true;
    }
    return false;
}

static void on_pause_tick(uv_timer_t *timer)
{
    struct place *place = CONTAINER_OF(timer, struct place, timer);
    if (!is_served(place))
        sockets_refuse(place->fd); /* the web server tries another worker */
    if (uv_now(timer->loop) < place->resume_at_ms)
        return;
    uv_timer_stop(timer);
    start_worker(place);
}

static void pause_place(struct place *place)
{
    int64_t pause_ms = backoff_next(&place->pause);
    log_warn("restarting %s in %d ms", place->name, (int)pause_ms);
    place->resume_at_ms = uv_now(place->workers->parts.loop) + (uint64_t)pause_ms;
    uv_timer_start(&place->timer, on_pause_tick, REFUSE_EVERY_MS, REFUSE_EVERY_MS);
}

/* ---- leaving ---- */

static void terminate(struct child *child)
{
    if (child->leaving)
        return;
    if (child->drain_beats == 0)
        child->drain_beats = child->workers->drain_beats;
    child->leaving = true;
    kill(child->pid, SIGTERM);
}

/* Stops the older generations, and releases the sockets that the newest one does not use. */
static void retire_old_workers(struct workers *workers)
{
    struct child *child;
    DL_FOREACH(workers->children, child)
    {
        if (child->generation != workers->generation)
            terminate(child);
    }
    for (int i = (int)workers->conf->workers; i < STATUS_SERVER; i++) {
        sockets_release(workers->parts.sockets, workers->places[i].fd);
        workers->places[i].fd = -1;
    }
}

void workers_stop(struct workers *workers)
{
    struct child *child;
    workers->stopping = true;
    DL_FOREACH(workers->children, child)
    {
        if (is_worker(child))
            terminate(child);
    }
    for (int i = 0; i < PLACES; i++)
        uv_timer_stop(&workers->places[i].timer);
}

/* ---- rows of the table ---- */

static void remove_child(struct child *child)
{
    DL_DELETE(child->workers->children, child);
    close_and_free((uv_handle_t *)&child->poll, child);
    close(child->control);
}

static void on_ready(struct child *child)
{
    struct workers *workers = child->workers;
    child->ready = true;
    if (workers->stopping || !workers_is_complete(workers))
        return;
    retire_old_workers(workers);
    workers->parts.on_change(workers->parts.ctx);
}

/* Sends a hint to all workers but the sender. A worker that does not read loses hints. */
static void pass_on(const struct child *sender, const char *message, size_t len)
{
    const struct child *child;
    DL_FOREACH(sender->workers->children, child)
    {
        if (child != sender && is_worker(child) && !child->leaving &&
            send(child->control, message, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            stat_inc(STAT_HOOKS_DROPPED);
    }
}

static void on_control(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct child *child = poll->data;
    char message[WORKER_MESSAGE_MAX];
    ssize_t n = recv(child->control, message, sizeof(message), MSG_DONTWAIT);
    if (n == 2 && message[0] == WORKER_PAGE && !is_worker(child))
        child->workers->parts.on_page(child->workers->parts.ctx, (unsigned char)message[1], child->control);
    else if (n > 0 && message[0] == WORKER_HINT)
        pass_on(child, message, (size_t)n);
    else if (n > 0 && message[0] == WORKER_READY && !child->ready)
        on_ready(child);
    else if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        child->finished = true;
        uv_poll_stop(poll); /* workers_exited will follow */
    }
}

/* Adds the row `facts` and takes ownership of its control descriptor. */
static void add_child(struct workers *workers, struct child facts)
{
    struct child *child = xcalloc(1, sizeof(*child));
    *child = facts;
    child->workers = workers;
    child->poll.data = child;
    uv_poll_init(workers->parts.loop, &child->poll, child->control);
    uv_poll_start(&child->poll, UV_READABLE, on_control);
    DL_APPEND(workers->children, child);
}

/* `status` is that of waitpid(2). */
static void replace(const struct child *child, int status)
{
    struct workers *workers = child->workers;
    stat_add(STAT_WORKER_DEATHS, is_worker(child));
    if (WIFSIGNALED(status))
        log_error("%s exited on signal %d", name_of(child), WTERMSIG(status));
    else
        log_error("%s exited with status %d", name_of(child), WEXITSTATUS(status));
    if (child->generation != workers->generation)
        return; /* the place has a worker of the newest generation */
    struct place *place = &workers->places[child->index];
    bool young = uv_now(workers->parts.loop) - child->started_ms < YOUNG_MS;
    place->deaths = young ? place->deaths + 1 : 0;
    if (!young)
        backoff_reset(&place->pause);
    if (place->deaths > 1)
        pause_place(place);
    else
        start_worker(place);
}

void workers_exited(struct workers *workers, int pid, int status)
{
    struct child *child;
    DL_SEARCH_SCALAR(workers->children, child, pid, pid);
    if (child == NULL)
        return;
    if (child->slot >= 0)
        stats_fold(child->slot);
    remove_child(child);
    if (!workers->stopping && !child->leaving)
        replace(child, status);
    workers->parts.on_change(workers->parts.ctx);
}

/* ---- handing over ---- */

/* PID:DESCRIPTOR:INDEX:SLOT:READY:START of each worker, separated by commas. */
void workers_hand_over(const struct workers *workers)
{
    const struct child *child;
    struct buf list;
    buf_init(&list, 64 * 1024);
    DL_FOREACH(workers->children, child)
    {
        fcntl(child->control, F_SETFD, 0);
        buf_addf(&list, "%s%d:%d:%d:%d:%d:%llu", list.len > 0 ? "," : "", child->pid, child->control,
                 child->index, child->slot, child->ready, (unsigned long long)child->started_ms);
    }
    setenv(handed_over, list.len > 0 ? list.data : "", 1);
    buf_done(&list);
}

/* Adopts a worker. If it has exited in the meantime, its counters are kept. */
static void adopt(struct workers *workers, const char *entry)
{
    struct child facts = {0};
    int ready;
    unsigned long long started_ms;
    if (sscanf(entry, "%d:%d:%d:%d:%d:%llu", &facts.pid, &facts.control, &facts.index, &facts.slot, &ready,
               &started_ms) != 6 ||
        facts.pid < 2 || facts.control <= STDERR_FILENO || facts.index < 0 || facts.index >= PLACES ||
        facts.slot >= STATS_SLOTS || fcntl(facts.control, F_SETFD, FD_CLOEXEC) < 0)
        return;
    if (!workers->parts.stats_inherited || facts.slot <= STATS_MASTER_SLOT)
        facts.slot = -1;
    facts.ready = ready != 0;
    facts.started_ms = started_ms;
    if (waitpid(facts.pid, NULL, WNOHANG) != 0) {
        close(facts.control);
        if (facts.slot >= 0)
            stats_fold(facts.slot);
        return;
    }
    add_child(workers, facts);
}

static void adopt_all(struct workers *workers)
{
    const char *list = getenv(handed_over);
    char *copy = xstrdup(list ? list : ""), *rest = copy, *entry;
    while ((entry = strsep(&rest, ",")) != NULL)
        adopt(workers, entry);
    free(copy);
}

/* ---- heartbeats ---- */

static void kill_hung(const struct child *child)
{
    log_error("%s unresponsive for %d s; killed", name_of(child), child->missed * WORKER_BEAT_MS / 1000);
    stat_add(STAT_WORKER_HANGS, is_worker(child));
    kill(child->pid, SIGKILL);
}

/* Returns whether the worker has just hung or recovered. */
static bool check_beats(struct child *child)
{
    bool was_hung = is_hung(child), at_work = child->ready && !child->finished;
    int64_t limit = child->workers->conf->hung_after_ms / WORKER_BEAT_MS * (at_work ? 1 : PATIENCE);
    int64_t beats = stats_beats(child->slot);
    child->missed = beats == child->beats ? child->missed + 1 : 0;
    child->beats = beats;
    if (child->missed > 0 && child->missed % limit == 0)
        kill_hung(child);
    return is_hung(child) != was_hung;
}

static void check_leaving(struct child *child)
{
    if (--child->drain_beats > 0)
        return;
    log_error("%s did not exit in time; killed", name_of(child));
    kill(child->pid, SIGKILL);
}

static void on_check(uv_timer_t *timer)
{
    struct workers *workers = CONTAINER_OF(timer, struct workers, check_timer);
    struct child *child;
    bool changed = false;
    DL_FOREACH(workers->children, child)
    {
        changed |= child->slot >= 0 && check_beats(child);
        if (child->leaving)
            check_leaving(child);
    }
    if (changed)
        workers->parts.on_change(workers->parts.ctx);
}

/* ---- starting ---- */

/* Variables from the service manager to the master, and from a master to the next one in an upgrade. */
static const char *const private_variables[] = {"NOTIFY_", "WATCHDOG_", "LISTEN_", "TASKPROXY_"};

static bool is_private(const char *variable)
{
    for (size_t i = 0; i < NELEMS(private_variables); i++) {
        if (strncmp(variable, private_variables[i], strlen(private_variables[i])) == 0)
            return true;
    }
    return false;
}

/* Returns an allocated list whose strings belong to this process's environment. */
static char **make_environment(void)
{
    size_t n = 0, kept = 0;
    while (environ[n] != NULL)
        n++;
    char **variables = xcalloc(n + 1, sizeof(*variables));
    for (size_t i = 0; i < n; i++) {
        if (!is_private(environ[i]))
            variables[kept++] = environ[i];
    }
    return variables;
}

int workers_spawn(uv_loop_t *loop, const char *const *args, const int *fds, int n_fds)
{
    uv_stdio_container_t stdio[SPAWN_FDS_MAX];
    uv_process_t *process = xcalloc(1, sizeof(*process));
    for (int i = 0; i < n_fds; i++)
        stdio[i] = (uv_stdio_container_t){.flags = fds[i] < 0 ? UV_IGNORE : UV_INHERIT_FD, .data.fd = fds[i]};
    uv_process_options_t options = {.file = args[0],
                                    .args = (char **)(uintptr_t)args,
                                    .env = make_environment(),
                                    .stdio = stdio,
                                    .stdio_count = n_fds};
    int error = uv_spawn(loop, process, &options), pid = process->pid;
    close_and_free((uv_handle_t *)process, process); /* before libuv looks for processes that have exited */
    free(options.env);
    return error < 0 ? error : pid;
}

static int free_slot(const struct workers *workers)
{
    const struct child *user;
    for (int slot = STATS_MASTER_SLOT + 1; slot < STATS_SLOTS; slot++) {
        DL_SEARCH_SCALAR(workers->children, user, slot, slot);
        if (user == NULL)
            return slot;
    }
    return -1;
}

/* `control` is the worker's end of the control socket. Returns the pid, or a negative error of libuv. */
static int spawn(const struct place *place, int slot, int control)
{
    struct workers *workers = place->workers;
    const struct conf *conf = workers->conf;
    bool status_server = place->index == STATUS_SERVER;
    char index_text[16], slot_text[16], level[16], format[16], sandbox[16];
    snprintf(index_text, sizeof(index_text), "%d", place->index);
    snprintf(slot_text, sizeof(slot_text), "%d", slot);
    snprintf(level, sizeof(level), "%d", conf->log_level);
    snprintf(format, sizeof(format), "%d", conf->log_format);
    snprintf(sandbox, sizeof(sandbox), "%d", conf->sandbox);
    const char *const args[] = {workers->program,         "--worker", index_text, slot_text,
                                workers->parts.conf_path, NULL};
    const char *const status_args[] = {workers->program, "--status-server", slot_text, conf->user, level,
                                       format,           sandbox,           NULL};
    const int fds[WORKER_FD_COUNT] = {[STDIN_FILENO] = -1,
                                      [STDOUT_FILENO] = STDERR_FILENO,
                                      [STDERR_FILENO] = STDERR_FILENO,
                                      [WORKER_FD_CONTROL] = control,
                                      [WORKER_FD_LISTEN] = place->fd,
                                      [WORKER_FD_STATS] = workers->parts.stats_fd,
                                      [WORKER_FD_FILES] = status_server ? -1 : workers->files.fd};
    return workers_spawn(workers->parts.loop, status_server ? status_args : args, fds, WORKER_FD_COUNT);
}

static void give_up_start(struct place *place, const char *why)
{
    log_error("cannot start %s: %s", place->name, why);
    place->deaths++;
    pause_place(place);
}

static void start_worker(struct place *place)
{
    struct workers *workers = place->workers;
    int pair[2], slot = free_slot(workers);
    if (slot < 0)
        return give_up_start(place, "too many workers are leaving");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return give_up_start(place, strerror(errno));
    int pid = spawn(place, slot, pair[1]);
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return give_up_start(place, uv_strerror(pid));
    }
    add_child(workers, (struct child){.pid = pid,
                                      .index = place->index,
                                      .slot = slot,
                                      .generation = workers->generation,
                                      .drain_beats = workers->drain_beats,
                                      .started_ms = uv_now(workers->parts.loop),
                                      .control = pair[0]});
    stat_add(STAT_WORKER_STARTS, place->index != STATUS_SERVER);
}

void workers_start(struct workers *workers, const struct conf *conf, struct files_image files)
{
    files_image_done(&workers->files);
    workers->files = files;
    workers->conf = conf;
    workers->drain_beats = (int)((conf->drain_ms + WORKERS_GRACE_MS) / WORKER_BEAT_MS) + 1;
    workers->generation++;
    uv_timer_start(&workers->check_timer, on_check, WORKER_BEAT_MS, WORKER_BEAT_MS);
    for (int i = 0; i < PLACES; i++) {
        struct place *place = &workers->places[i];
        uv_timer_stop(&place->timer);
        place->deaths = 0;
        backoff_reset(&place->pause);
        if (is_wanted(i, conf))
            start_worker(place);
    }
}

/* ---- all workers ---- */

static void init_places(struct workers *workers)
{
    for (int i = 0; i < PLACES; i++) {
        struct place *place = &workers->places[i];
        *place = (struct place){.workers = workers,
                                .index = i,
                                .fd = -1,
                                .pause = {.first_ms = PAUSE_FIRST_MS, .max_ms = PAUSE_MAX_MS}};
        uv_timer_init(workers->parts.loop, &place->timer);
        place->timer.data = workers;
        if (i == STATUS_SERVER)
            strcpy(place->name, "the status server");
        else
            snprintf(place->name, sizeof(place->name), "worker %d", i);
    }
}

struct workers *workers_new(struct workers_parts parts)
{
    struct workers *workers = xcalloc(1, sizeof(*workers));
    char program[4096];
    ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);
    workers->parts = parts;
    workers->program = xstrndup(program, len > 0 ? (size_t)len : 0);
    workers->files.fd = -1;
    init_places(workers);
    uv_timer_init(parts.loop, &workers->check_timer);
    workers->check_timer.data = workers;
    workers->open_handles = PLACES + 1;
    adopt_all(workers);
    return workers;
}

static void on_handle_closed(uv_handle_t *handle)
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
    while (workers->children != NULL) {
        const struct child *child = workers->children;
        if (!is_worker(child) && kill(child->pid, SIGKILL) == 0)
            waitpid(child->pid, NULL, 0); /* the next master must find status.sock closed */
        remove_child(workers->children);
    }
    for (int i = 0; i < PLACES; i++)
        uv_close((uv_handle_t *)&workers->places[i].timer, on_handle_closed);
    uv_close((uv_handle_t *)&workers->check_timer, on_handle_closed);
}
