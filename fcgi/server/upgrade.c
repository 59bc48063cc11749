/* upgrade: see upgrade.h. */
#include "server/upgrade.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/log.h"

enum { CHECK_MAX_MS = 30000 };

struct check {
    uv_process_t process;
    uv_timer_t timer; /* the time limit */
    int open_handles;
    upgrade_checked *on_checked;
    void *ctx;
};

bool upgrade_is_due(const char *program)
{
    struct stat there, ours;
    return stat(program, &there) == 0 && stat("/proc/self/exe", &ours) == 0 &&
           (there.st_dev != ours.st_dev || there.st_ino != ours.st_ino);
}

static void on_closed(uv_handle_t *handle)
{
    struct check *check = handle->data;
    if (--check->open_handles == 0)
        free(check);
}

static void close_check(struct check *check)
{
    uv_close((uv_handle_t *)&check->process, on_closed);
    uv_close((uv_handle_t *)&check->timer, on_closed);
}

static void on_time_limit(uv_timer_t *timer)
{
    struct check *check = timer->data;
    uv_process_kill(&check->process, SIGKILL);
}

static void on_exit_of_check(uv_process_t *process, int64_t status, int signal_number)
{
    struct check *check = CONTAINER_OF(process, struct check, process);
    close_check(check);
    check->on_checked(check->ctx, status == 0 && signal_number == 0);
}

bool upgrade_check(uv_loop_t *loop, const char *program, const char *conf_path, upgrade_checked *on_checked,
                   void *ctx)
{
    struct check *check = xcalloc(1, sizeof(*check));
    char *name = xstrdup(program), *path = xstrdup(conf_path);
    char *args[] = {name, (char[]){"-c"}, path, (char[]){"--check-config"}, NULL};
    uv_stdio_container_t stdio[] = {
        {.flags = UV_IGNORE}, {.flags = UV_IGNORE}, {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO}};
    const uv_process_options_t options = {
        .exit_cb = on_exit_of_check, .file = name, .args = args, .stdio_count = 3, .stdio = stdio};
    *check = (struct check){.open_handles = 2, .on_checked = on_checked, .ctx = ctx};
    check->process.data = check->timer.data = check;
    uv_timer_init(loop, &check->timer);
    uv_timer_start(&check->timer, on_time_limit, CHECK_MAX_MS, 0);
    int error = uv_spawn(loop, &check->process, &options);
    if (error < 0) {
        log_error("cannot start %s: %s", program, uv_strerror(error));
        close_check(check);
    }
    free(name);
    free(path);
    return error == 0;
}

const char *upgrade_exec(const char *program, const char *conf_path)
{
    execl(program, program, "-c", conf_path, (char *)NULL);
    return strerror(errno);
}
