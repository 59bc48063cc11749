/* upgrade: the running program replaces itself by the one that is installed at its path, by exec.
 *
 *     HUP --another file is installed--> it checks the configuration --accepts--> exec: same process, sockets, workers
 *                                                                    '--refuses--> nothing changes */
#ifndef UPGRADE_H
#define UPGRADE_H

#include <uv.h>

#include "lib/util.h"

/* Whether the file at `program` is another one than the running program's. */
bool upgrade_is_due(const char *program);

typedef void upgrade_checked(void *ctx, bool good);

/* Lets the program check the configuration `conf_path`; it prints what is wrong on standard error. True: started, and
 * exactly one callback will come, later. */
bool upgrade_check(uv_loop_t *loop, const char *program, const char *conf_path, upgrade_checked *on_checked,
                   void *ctx);

/* Executes the program in this process. Returns only on failure, with the reason. */
const char *upgrade_exec(const char *program, const char *conf_path);

#endif
