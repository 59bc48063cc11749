/* target: which URL is meant, where somebody names a task. */
#ifndef TARGET_H
#define TARGET_H

#include "lib/util.h"

/* The URL (allocated) that `text` is, or that PROVIDER/ID has beneath `base`: http://host or https://host, with or without a
 * path. NULL with *ret_error (allocated). */
char *target_url(const char *text, const char *base, char **ret_error);

#endif
