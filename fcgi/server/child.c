/* child: see child.h. */
#include "server/child.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Variables from the service manager to the master, and from a master to the next one in an upgrade. */
static const char *const private_variables[] = {
    "NOTIFY_SOCKET=",  "WATCHDOG_USEC=",     "WATCHDOG_PID=",      "LISTEN_PID=",        "LISTEN_FDS=",
    "LISTEN_FDNAMES=", "TASKPROXY_WORKERS=", "TASKPROXY_SOCKETS=", "TASKPROXY_COUNTERS="};

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

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int child_start(uv_loop_t *loop, const char *const *args, const int *fds, int n_fds)
{
    uv_stdio_container_t stdio[CHILD_FDS_MAX];
    uv_process_t *process = xcalloc(1, sizeof(*process));
    for (int i = 0; i < n_fds; i++)
        stdio[i] = (uv_stdio_container_t){.flags = fds[i] < 0 ? UV_IGNORE : UV_INHERIT_FD, .data.fd = fds[i]};
    uv_process_options_t options = {.file = args[0],
                                    .args = (char **)(uintptr_t)args,
                                    .env = make_environment(),
                                    .stdio = stdio,
                                    .stdio_count = n_fds};
    int error = uv_spawn(loop, process, &options), pid = process->pid;
    process->data = process;
    uv_close((uv_handle_t *)process, on_closed); /* before libuv looks for processes that have exited */
    free(options.env);
    return error < 0 ? error : pid;
}
