/* sockets: see sockets.h. */
#include "server/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/buf.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "server/sandbox.h"

enum { BACKLOG = 4096, PASSED_FIRST = 3, PASSED_MAX = 256 };

/* Environment variable for the next program in an upgrade: the sockets that this program has opened
 * itself. */
static const char own_sockets[] = "TASKPROXY_SOCKETS";

/* A listening socket. One from the service manager stays open, because a later configuration may use it. */
struct passed {
    int fd;
    char *path;
    bool used; /* by the configuration */
    bool own;  /* opened by this program, or by the one before an upgrade */
};

struct sockets {
    struct passed *items;
    size_t n;
    bool changed;     /* a configuration uses or releases sockets that sockets_tidy has not seen */
    int unserved;     /* epoll instance: the service manager's sockets that the configuration does not use */
    uv_poll_t refuse; /* of that instance */
};

/* ---- sockets that no worker serves ---- */

void sockets_refuse(int fd)
{
    int connection;
    while ((connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(connection);
}

static void on_unserved(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    const struct sockets *sockets = poll->data;
    struct epoll_event event;
    while (epoll_wait(sockets->unserved, &event, 1, 0) > 0)
        sockets_refuse(event.data.fd);
}

/* Edge-triggered, so that a connection that cannot be accepted does not keep the master busy. */
static void set_used(struct sockets *sockets, struct passed *item, bool used)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = item->fd};
    item->used = used;
    sockets->changed = true;
    if (!item->own)
        epoll_ctl(sockets->unserved, used ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, item->fd, &event);
}

/* ---- sockets that were passed to this process ---- */

static int passed_count(void)
{
    const char *pid_text = getenv("LISTEN_PID"), *count_text = getenv("LISTEN_FDS");
    int64_t pid, n;
    if (pid_text == NULL || count_text == NULL || parse_int(pid_text, &pid) < 0 || pid != getpid() ||
        parse_int(count_text, &n) < 0 || n < 0)
        return 0;
    return n > PASSED_MAX ? PASSED_MAX : (int)n;
}

/* The path of a listening UNIX stream socket (allocated); NULL: the descriptor is something else. */
static char *path_of(int fd)
{
    struct sockaddr_un address = {0};
    socklen_t address_len = sizeof(address) - 1, int_len = sizeof(int);
    int type = 0, listening = 0;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &int_len);
    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &int_len);
    if (type != SOCK_STREAM || !listening || getsockname(fd, (struct sockaddr *)&address, &address_len) < 0 ||
        address.sun_family != AF_UNIX || address.sun_path[0] == '\0')
        return NULL;
    return xstrdup(address.sun_path);
}

static struct passed *append(struct sockets *sockets, struct passed item)
{
    sockets->items = xrealloc(sockets->items, (sockets->n + 1) * sizeof(*sockets->items));
    sockets->items[sockets->n] = item;
    return &sockets->items[sockets->n++];
}

static void add(struct sockets *sockets, int fd, bool own)
{
    char *path = path_of(fd);
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || path == NULL) {
        log_warn("ignoring descriptor %d, which was passed to this process: not a listening UNIX socket", fd);
        free(path);
        return;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    set_used(sockets, append(sockets, (struct passed){.fd = fd, .path = path, .own = own}), false);
}

/* Reads the list "FD,FD" that sockets_hand_over has written. */
static void add_own(struct sockets *sockets)
{
    const char *list = getenv(own_sockets);
    char *copy = xstrdup(list ? list : ""), *rest = copy, *word;
    int64_t fd;
    while ((word = strsep(&rest, ",")) != NULL) {
        if (parse_int(word, &fd) == 0 && fd > STDERR_FILENO && fd <= INT32_MAX)
            add(sockets, (int)fd, true);
    }
    free(copy);
}

struct sockets *sockets_new(uv_loop_t *loop)
{
    struct sockets *sockets = xcalloc(1, sizeof(*sockets));
    int n = passed_count();
    sockets->unserved = epoll_create1(EPOLL_CLOEXEC);
    sockets->refuse.data = sockets;
    if (sockets->unserved < 0 || uv_poll_init(loop, &sockets->refuse, sockets->unserved) < 0)
        abort(); /* no descriptor is left at the very start */
    uv_poll_start(&sockets->refuse, UV_READABLE, on_unserved);
    for (int i = 0; i < n; i++)
        add(sockets, PASSED_FIRST + i, false);
    add_own(sockets);
    return sockets;
}

void sockets_hand_over(const struct sockets *sockets)
{
    struct buf list;
    buf_init(&list, 64 * 1024);
    for (size_t i = 0; i < sockets->n; i++) {
        const struct passed *item = &sockets->items[i];
        fcntl(item->fd, F_SETFD, 0);
        if (item->own)
            buf_addf(&list, "%s%d", list.len > 0 ? "," : "", item->fd);
    }
    setenv(own_sockets, list.len > 0 ? list.data : "", 1);
    buf_done(&list);
}

static struct passed *find_passed(struct sockets *sockets, const char *path)
{
    for (size_t i = 0; i < sockets->n; i++) {
        if (strcmp(sockets->items[i].path, path) == 0)
            return &sockets->items[i];
    }
    return NULL;
}

/* ---- sockets that this process opens ---- */

char *socket_dir_make(const char *dir)
{
    if ((mkdir(dir, 0755) == 0 && chmod(dir, 0755) == 0) || errno == EEXIST)
        return NULL; /* chmod, because the umask may have denied access to the web server */
    return xasprintf("cannot create the directory %s: %s", dir, strerror(errno));
}

/* Removes a socket that a dead process has left at that address, where `fd` shall listen. Returns an error
 * (allocated), or NULL. */
static char *clear_way(int fd, const struct sockaddr_un *address)
{
    struct stat st;
    if (lstat(address->sun_path, &st) < 0)
        return NULL; /* no file exists there, or bind will report the error */
    if (!S_ISSOCK(st.st_mode))
        return xasprintf("%s exists and is not a socket", address->sun_path);
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno != ECONNREFUSED)
        return xasprintf("already running: %s is in use", address->sun_path);
    if (unlink(address->sun_path) < 0)
        return xasprintf("cannot remove the old %s: %s", address->sun_path, strerror(errno));
    return NULL;
}

/* `group` may be NULL: that of the process. */
static char *set_group(const char *path, const char *group)
{
    gid_t gid = getegid();
    if (group != NULL && sandbox_find_group(group, &gid) < 0)
        return xasprintf("there is no group \"%s\" (\"socket_group\")", group);
    if (chown(path, (uid_t)-1, gid) < 0)
        return xasprintf("cannot give %s to the group %lld (\"socket_group\"): %s", path, (long long)gid,
                         strerror(errno));
    return NULL;
}

static char *bind_and_listen(int fd, const struct sockaddr_un *address, const char *group)
{
    mode_t before = umask(0117); /* so that others cannot connect even for a moment */
    int bound = bind(fd, (const struct sockaddr *)address, sizeof(*address));
    umask(before);
    if (bound < 0)
        return xasprintf("cannot listen on %s: %s", address->sun_path, strerror(errno));
    char *error = set_group(address->sun_path, group);
    if (error == NULL && listen(fd, BACKLOG) < 0)
        error = xasprintf("cannot listen on %s: %s", address->sun_path, strerror(errno));
    if (error != NULL)
        unlink(address->sun_path);
    return error;
}

static int listen_new(const char *path, const char *group, char **ret_error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        *ret_error = xasprintf("%s is too long for the path of a UNIX socket", path);
        return -1;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *ret_error = fd < 0 ? xasprintf("cannot create a socket: %s", strerror(errno)) : clear_way(fd, &address);
    if (*ret_error == NULL)
        *ret_error = bind_and_listen(fd, &address, group);
    if (*ret_error == NULL)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ---- all sockets ---- */

int sockets_listen(struct sockets *sockets, const char *path, const char *group, char **ret_error)
{
    struct passed *item = find_passed(sockets, path);
    if (item == NULL) {
        int fd = listen_new(path, group, ret_error);
        if (fd < 0)
            return -1;
        item = append(sockets, (struct passed){.fd = fd, .path = xstrdup(path), .own = true});
    } else if (item->own && (*ret_error = set_group(path, group)) != NULL) {
        return -1;
    }
    set_used(sockets, item, true);
    return item->fd;
}

void sockets_release(struct sockets *sockets, int fd)
{
    for (size_t i = 0; i < sockets->n; i++) {
        if (sockets->items[i].fd == fd)
            set_used(sockets, &sockets->items[i], false);
    }
}

static void close_item(const struct passed *item)
{
    if (item->own)
        unlink(item->path);
    close(item->fd);
    free(item->path);
}

static bool any_passed(const struct sockets *sockets)
{
    for (size_t i = 0; i < sockets->n; i++) {
        if (!sockets->items[i].own)
            return true;
    }
    return false;
}

/* Logs the differences between the sockets that were passed and those that are used, and counts those that no
 * worker serves. */
static void compare(const struct sockets *sockets)
{
    int n_unserved = 0;
    bool passed = any_passed(sockets);
    for (size_t i = 0; i < sockets->n; i++) {
        const struct passed *item = &sockets->items[i];
        n_unserved += !item->used;
        if (!item->used)
            log_warn(
                "no worker serves %s, which the service manager has opened: connections to it are closed",
                item->path);
        else if (item->own && passed)
            log_warn(
                "the service manager has not opened %s: a restart of the service refuses connections to it",
                item->path);
    }
    stat_set(STAT_SOCKETS_UNSERVED, n_unserved);
}

void sockets_tidy(struct sockets *sockets)
{
    for (size_t i = sockets->n; i-- > 0;) {
        struct passed *item = &sockets->items[i];
        if (!item->own || item->used)
            continue;
        close_item(item);
        *item = sockets->items[--sockets->n];
    }
    if (sockets->changed)
        compare(sockets);
    sockets->changed = false;
}

void sockets_free(struct sockets *sockets)
{
    for (size_t i = 0; i < sockets->n; i++)
        close_item(&sockets->items[i]);
    free(sockets->items);
    close_and_free((uv_handle_t *)&sockets->refuse, sockets);
    close(sockets->unserved);
}
