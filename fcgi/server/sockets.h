/* sockets: the UNIX sockets that the web server connects to. The master opens them itself, or the service manager has
 * opened them and passes them on (systemd's LISTEN_FDS); then they outlive the master. In an upgrade the program passes
 * all of them on to the next one. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "lib/util.h"

struct sockets;

/* Takes over the sockets that were passed to this process, and removes them from the environment. */
struct sockets *sockets_new(void);
void sockets_free(struct sockets *sockets); /* NULL is allowed */

/* Creates the directory if it is missing; -1 with *ret_error (allocated). */
MUST_CHECK int socket_dir_make(const char *dir, char **ret_error);

/* A listening socket at `path`, the caller's to close: the one that was passed with this path, or else a new one, mode
 * 0660, of `group` (NULL: that of the process). A socket that a dead process has left is replaced; a live one is not.
 * The descriptor, or -1 with *ret_error (allocated). */
MUST_CHECK int sockets_listen(struct sockets *sockets, const char *path, const char *group, char **ret_error);

/* Closes and removes the socket, unless it is the service manager's. */
void sockets_remove(struct sockets *sockets, const char *path);

/* Keeps every socket open for the next program in this process, and lists them in the environment. */
void sockets_hand_over(const struct sockets *sockets);

/* Closes and removes the sockets from before an upgrade that this configuration does not use. */
void sockets_tidy(struct sockets *sockets);

/* The path of the next socket of the service manager that the configuration does not use, from *at on, which advances;
 * NULL after the last. */
const char *sockets_unused(const struct sockets *sockets, size_t *at);

#endif
