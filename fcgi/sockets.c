/* sockets: see sockets.h. */
#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

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

int socket_listen(const char *path, const char *group, char **ret_error)
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
