/* sockets: see sockets.h. */
#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"

enum { BACKLOG = 4096, PASSED_FIRST = 3, PASSED_MAX = 256 };

/* A socket that was passed; it stays open as long as we live, for a reload that wants it again. */
struct passed {
    int fd;
    char *path;
    bool used;
};

struct sockets {
    struct passed items[PASSED_MAX];
    size_t n;
};

/* ---- those that the service manager has passed ---- */

static int passed_count(void)
{
    const char *pid_text = getenv("LISTEN_PID"), *count_text = getenv("LISTEN_FDS");
    int64_t pid, n;
    if (pid_text == NULL || count_text == NULL || parse_int(pid_text, &pid) < 0 || pid != getpid() ||
        parse_int(count_text, &n) < 0 || n < 0)
        return 0;
    return n > PASSED_MAX ? PASSED_MAX : (int)n;
}

/* Where a listening UNIX stream socket is (allocated); NULL: it is something else. */
static char *path_of(int fd)
{
    struct sockaddr_un address = {0};
    socklen_t address_len = sizeof(address) - 1, int_len = sizeof(int);
    int type = 0, listening = 0;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &int_len);
    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &int_len);
    if (type != SOCK_STREAM || !listening || getsockname(fd, (struct sockaddr *)&address, &address_len) < 0 ||
        address.sun_family != AF_UNIX || address.sun_path[0] != '/')
        return NULL;
    return xstrdup(address.sun_path);
}

struct sockets *sockets_new(void)
{
    struct sockets *sockets = xcalloc(1, sizeof(*sockets));
    int n = passed_count();
    for (int fd = PASSED_FIRST; fd < PASSED_FIRST + n; fd++) {
        char *path = path_of(fd);
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || path == NULL) {
            log_warn("descriptor %d, passed by the service manager, is no listening UNIX socket: not used",
                     fd);
            free(path);
            continue;
        }
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        sockets->items[sockets->n++] = (struct passed){.fd = fd, .path = path};
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return sockets;
}

void sockets_free(struct sockets *sockets)
{
    for (size_t i = 0; sockets != NULL && i < sockets->n; i++) {
        close(sockets->items[i].fd);
        free(sockets->items[i].path);
    }
    free(sockets);
}

static struct passed *find_passed(struct sockets *sockets, const char *path)
{
    for (size_t i = 0; i < sockets->n; i++) {
        if (strcmp(sockets->items[i].path, path) == 0)
            return &sockets->items[i];
    }
    return NULL;
}

const char *sockets_unused(const struct sockets *sockets, size_t *at)
{
    while (*at < sockets->n) {
        const struct passed *passed = &sockets->items[(*at)++];
        if (!passed->used)
            return passed->path;
    }
    return NULL;
}

/* ---- our own ---- */

int socket_dir_make(const char *dir, char **ret_error)
{
    if (mkdir(dir, 0755) == 0 || errno == EEXIST)
        return 0;
    *ret_error = xasprintf("cannot make the folder %s: %s", dir, strerror(errno));
    return -1;
}

/* Clears the way for a socket at that address. An error message, allocated, or NULL. */
static char *clear_way(const struct sockaddr_un *address)
{
    struct stat st;
    if (lstat(address->sun_path, &st) < 0)
        return NULL; /* nothing there; or bind will say what is wrong */
    if (!S_ISSOCK(st.st_mode))
        return xasprintf("%s is there already and is no socket", address->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return xasprintf("cannot make a socket: %s", strerror(errno));
    bool dead = connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 && errno == ECONNREFUSED;
    close(fd);
    if (!dead)
        return xasprintf("already running: %s is in use", address->sun_path);
    if (unlink(address->sun_path) < 0)
        return xasprintf("cannot remove the old %s: %s", address->sun_path, strerror(errno));
    return NULL;
}

static char *set_group(const char *path, const char *group)
{
    const struct group *entry = getgrnam(group);
    if (entry == NULL)
        return xasprintf("there is no group \"%s\" (\"socket_group\")", group);
    if (chown(path, (uid_t)-1, entry->gr_gid) < 0)
        return xasprintf("cannot give %s to the group \"%s\" (\"socket_group\"): %s", path, group,
                         strerror(errno));
    return NULL;
}

static char *bind_and_listen(int fd, const struct sockaddr_un *address, const char *group)
{
    mode_t before = umask(0117); /* the socket is never open to more, not even for a moment */
    int bound = bind(fd, (const struct sockaddr *)address, sizeof(*address));
    umask(before);
    if (bound < 0)
        return xasprintf("cannot listen on %s: %s", address->sun_path, strerror(errno));
    char *error = group ? set_group(address->sun_path, group) : NULL;
    if (error == NULL && listen(fd, BACKLOG) < 0)
        error = xasprintf("cannot listen on %s: %s", address->sun_path, strerror(errno));
    if (error != NULL)
        unlink(address->sun_path);
    return error;
}

static int listen_anew(const char *path, const char *group, char **ret_error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        *ret_error = xasprintf("%s is too long for a UNIX socket", path);
        return -1;
    }
    strcpy(address.sun_path, path);
    *ret_error = clear_way(&address);
    if (*ret_error != NULL)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *ret_error = fd < 0 ? xasprintf("cannot make a socket: %s", strerror(errno))
                        : bind_and_listen(fd, &address, group);
    if (*ret_error == NULL)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ---- both ---- */

int sockets_listen(struct sockets *sockets, const char *path, const char *group, char **ret_error)
{
    struct passed *passed = find_passed(sockets, path);
    if (passed == NULL)
        return listen_anew(path, group, ret_error);
    passed->used = true;
    int fd = fcntl(passed->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        *ret_error = xasprintf("cannot take over the socket %s: %s", path, strerror(errno));
    return fd;
}

void sockets_remove(struct sockets *sockets, const char *path)
{
    if (find_passed(sockets, path) == NULL)
        unlink(path);
}
