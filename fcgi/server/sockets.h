/* sockets: the UNIX sockets that the web server connects to. Either the master opens them, or the service
 * manager opens them and passes them to the master (systemd's LISTEN_FDS); then they outlive the master. In
 * an upgrade, the program passes all of them on to the next one. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include <uv.h>

#include "lib/util.h"

struct sockets;

/* Takes over the sockets that the environment lists. The variables stay set; workers_spawn does not pass them on. */
struct sockets *sockets_new(uv_loop_t *loop);

/* Closes all sockets, and removes those that are not the service manager's. Run the loop once more. */
void sockets_free(struct sockets *sockets);

/* Creates the directory, with mode 0755, if it is missing. Returns an error (allocated), or NULL. */
MUST_CHECK char *socket_dir_make(const char *dir);

/* Returns a listening socket at `path`, (ref): the one that was passed with this path or is open already, or
 * else a new one with mode 0660. It has the `group` (NULL: that of the process), unless it is the service
 * manager's. A socket left behind by a dead process is replaced; a live one is not. -1 with *ret_error (allocated)
 * on failure. */
MUST_CHECK int sockets_listen(struct sockets *sockets, const char *path, const char *group, char **ret_error);

/* The configuration in force does not use this socket. If the service manager has opened it, it stays open, and
 * connections to it are accepted and closed at once, so that the web server tries another worker. */
void sockets_release(struct sockets *sockets, int fd);

/* Accepts and closes all connections that wait at a listening socket. */
void sockets_refuse(int fd);

/* Keeps every socket open for the next program in this process, and lists them in the environment. */
void sockets_hand_over(const struct sockets *sockets);

/* Call this when all workers of the configuration are ready. Closes and removes the sockets that the configuration
 * does not use, except the service manager's; logs, once per configuration, how the service manager's sockets and
 * those in use differ. */
void sockets_tidy(struct sockets *sockets);

#endif
