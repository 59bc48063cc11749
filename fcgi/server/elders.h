/* elders: workers that the program had before it became another one (an upgrade).
 *
 * They go on serving until the new program's workers are ready. They are our children still, but no longer
 * libuv's: what is left of them is a process id and the end of a control descriptor. */
#ifndef ELDERS_H
#define ELDERS_H

#include <uv.h>

#include "lib/buf.h"

struct elders;

/* Takes over those that a list names, as elders_name wrote it (NULL: none). `on_change` is called when one has
 * ended. */
struct elders *elders_new(uv_loop_t *loop, const char *list, void (*on_change)(void *ctx), void *ctx);

/* Those that are left are left alone. Freed when the loop has run its closing callbacks. NULL is allowed. */
void elders_free(struct elders *elders);

/* Adds a worker to a list for the next program; the descriptor will stay open in it. */
void elders_name(struct buf *list, int pid, int control_fd);

/* There is no next program after all: no descriptor of the list stays open over an exec. */
void elders_unname(const struct buf *list);

/* Adds all that are left. */
void elders_name_all(struct elders *elders, struct buf *list);

size_t elders_count(const struct elders *elders);

/* Tells them to leave, once; who has not done so within `within_ms` is killed. */
void elders_retire(struct elders *elders, int64_t within_ms);
void elders_kill(struct elders *elders);

#endif
