/* sockets: the UNIX sockets that the web server connects to. Either the master opens them, or the service
 * manager opens them and passes them to the master (systemd's LISTEN_FDS); then they outlive the master. In
 * an upgrade, the program passes all of them on to the next one. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "lib/util.h"

struct sockets;

/* Takes over the sockets that were passed to this process, and removes them from the environment. */
struct sockets *sockets_new(void);
void sockets_free(struct sockets *sockets); /* NULL is allowed */

/* Creates the directory if it is missing; -1 with *ret_error (allocated). */
MUST_CHECK int socket_dir_make(const char *dir, char **ret_error);

/* Returns a listening socket at `path`, which the caller closes: the one that was passed with this path, or
 * else a new one with mode 0660 and `group` (NULL: that of the process). A socket left behind by a dead
 * process is replaced; a live one is not. -1 with *ret_error (allocated) on failure. */
MUST_CHECK int sockets_listen(struct sockets *sockets, const char *path, const char *group, char **ret_error);

/* Closes and removes the socket, unless it is the service manager's. */
void sockets_remove(struct sockets *sockets, const char *path);

/* Keeps every socket open for the next program in this process, and lists them in the environment. */
void sockets_hand_over(const struct sockets *sockets);

/* Closes and removes sockets that the program before an upgrade has passed on and this configuration does not
 * use. */
void sockets_tidy(struct sockets *sockets);

/* Iterates over the service manager's sockets that the configuration does not use: returns the path of the
 * next one from *at on, and advances *at; NULL after the last. */
const char *sockets_unused(const struct sockets *sockets, size_t *at);

#endif
