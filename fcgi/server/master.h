/* master: opens the sockets, keeps the workers running, and answers the operator. It serves no task. */
#ifndef MASTER_H
#define MASTER_H

#include "config/conf.h"

/* Why this process could not run workers for the configuration, or NULL: the user and the group that it names have to
 * exist. Allocated: "FILE:LINE: /user: there is no user \"x\"". */
char *master_refuses(const struct conf *conf);

/* Runs until TERM or INT; the exit status. `path` is the configuration's name, for reloads; `conf` belongs to
 * the master from here on. */
int master_main(const char *path, struct conf *conf);

#endif
