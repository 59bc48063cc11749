/* master: opens the sockets, keeps the workers running, and serves the status pages. It handles no requests
 * for tasks. */
#ifndef MASTER_H
#define MASTER_H

#include "config/conf.h"

/* Why this process could not run workers for the configuration, or NULL: its user or group does not exist.
 * Allocated: "FILE:LINE: /user: there is no user \"x\"". */
char *master_refuses(const struct conf *conf);

/* Blocks the signals that master_main handles, until it does. Call it before the configuration is read: the
 * kernel discards signals to process 1 that are neither blocked nor handled. */
void master_block_signals(void);

/* Runs until TERM or INT; the exit status. `path` is that of the configuration, for reloads; the master owns
 * `conf` from here on. */
int master_main(const char *path, struct conf *conf);

#endif
