/* master: opens the sockets, keeps the workers running, and answers the operator. It serves no task. */
#ifndef MASTER_H
#define MASTER_H

#include "conf.h"

/* Runs until TERM or INT; the exit status. `path` is the configuration's name, for reloads; `conf` belongs to
 * the master from here on. */
int master_main(const char *path, struct conf *conf);

#endif
