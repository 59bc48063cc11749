/* filewatch: notices when secrets and other live files have changed on the disk, in whatever way: written in
 * place, replaced by a rename, or reached through another symbolic link (as Kubernetes and systemd do).
 *
 * It compares the stamps of the files twice a second. That finds every change, on every file system, and
 * costs one stat(2) for each file. */
#ifndef FILEWATCH_H
#define FILEWATCH_H

#include <uv.h>

#include "lib/files.h"

struct filewatch;

/* `on_change` is called once for all changes, when the files no longer change. */
struct filewatch *filewatch_new(uv_loop_t *loop, void (*on_change)(void *ctx), void *ctx);

/* Freed when the loop has run its closing callbacks. NULL is allowed. */
void filewatch_free(struct filewatch *watch);

/* Watches the live files of this set, in place of the previous set, for changes since it was read. */
void filewatch_set(struct filewatch *watch, const struct files *files);

#endif
