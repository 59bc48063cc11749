/* filewatch: tells when secrets and other live files of a set have changed on the disk, in whatever way -
 * written in place, by a rename onto their names, or by another symbolic link on the way to them (as
 * Kubernetes and systemd do).
 *
 * The system tells of changes in the folders; what it does not tell is found by looking now and then. */
#ifndef FILEWATCH_H
#define FILEWATCH_H

#include <uv.h>

#include "lib/files.h"

struct filewatch;

/* `on_change` is called once for changes that come together, when nothing has moved for a moment. */
struct filewatch *filewatch_new(uv_loop_t *loop, void (*on_change)(void *ctx), void *ctx);

/* Freed when the loop has run its closing callbacks. NULL is allowed. */
void filewatch_free(struct filewatch *watch);

/* Watches these from here on, for changes since they were read. */
void filewatch_set(struct filewatch *watch, const struct files *files);

#endif
