/* sockets: the UNIX sockets that the web server connects to. We open them, or the service manager has done so
 * and passes them on (systemd's LISTEN_FDS): then they are its own, and outlive us. The program that we were
 * before an upgrade passes its sockets on as well. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "lib/util.h"

struct sockets;

/* Takes over what the service manager has passed to this process, and says so in no environment any more. */
struct sockets *sockets_new(void);
void sockets_free(struct sockets *sockets); /* NULL is allowed */

/* Makes the folder when it is missing; -1 with *ret_error (allocated). */
MUST_CHECK int socket_dir_make(const char *dir, char **ret_error);

/* A listening socket at `path`, the caller's to close: the one that was passed with this path; or else a new
 * one, mode 0660, of `group` (NULL: the process's). A file that a dead process left is replaced; a live socket
 * is not. The descriptor, or -1 with *ret_error (allocated). */
MUST_CHECK int sockets_listen(struct sockets *sockets, const char *path, const char *group, char **ret_error);

/* Removes the socket's file, unless the service manager owns it. */
void sockets_remove(struct sockets *sockets, const char *path);

/* Keeps every socket open for the next program that this process becomes, and says so in the environment. */
void sockets_hand_over(const struct sockets *sockets);

/* There is no next program after all. */
void sockets_take_back(const struct sockets *sockets);

/* Closes and removes those of the program before an upgrade that nobody has listened on. */
void sockets_tidy(struct sockets *sockets);

/* The path of a socket of the service manager's that nobody has listened on, from *at on, which moves on; NULL
 * behind the last. */
const char *sockets_unused(const struct sockets *sockets, size_t *at);

#endif
