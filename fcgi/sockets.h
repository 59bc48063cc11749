/* sockets: the UNIX sockets that the web server connects to. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "util.h"

/* Makes the folder when it is missing; -1 with *ret_error (allocated). */
MUST_CHECK int socket_dir_make(const char *dir, char **ret_error);

/* A listening socket at `path`, mode 0660, of `group` (NULL: the process's). A file that a dead process left
 * is replaced; a live socket is not. The descriptor, or -1 with *ret_error (allocated). */
MUST_CHECK int socket_listen(const char *path, const char *group, char **ret_error);

#endif
