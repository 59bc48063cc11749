/* upgrade: the running program becomes the one that lies where it was started from, by exec.
 *
 *     HUP --another file lies there--> it checks the configuration --good--> exec: same process, sockets, workers
 *                                                                  '--bad--> all stays as it was */
#ifndef UPGRADE_H
#define UPGRADE_H

#include <uv.h>

#include "lib/util.h"

/* Whether another file than the running program's lies at `program`. */
bool upgrade_is_due(const char *program);

typedef void upgrade_checked(void *ctx, bool good);

/* Lets the program check the configuration `conf_path`; it says on standard error what is wrong. True: exactly
 * one callback will come, later. */
bool upgrade_check(uv_loop_t *loop, const char *program, const char *conf_path, upgrade_checked *on_checked,
                   void *ctx);

/* Becomes the program, to which the environment tells what it takes over. Signals wait until it unblocks them
 * (signals_unblock). Returns only when that was not possible, with the reason. */
const char *upgrade_exec(const char *program, const char *conf_path);

/* HUP, TERM and INT come in. */
void signals_unblock(void);

#endif
