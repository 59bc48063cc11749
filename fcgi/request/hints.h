/* hints: tasks that an upstream says have changed - fetched at once, and no more often than they may be.
 *
 *     hint --> fetch anew --> for the provider's shortest interval: further hints are put off to its end  */
#ifndef HINTS_H
#define HINTS_H

#include <uv.h>

#include "fetch/fetches.h"

struct hints;

/* Both (ref), and outlive the hints. */
struct hints *hints_new(uv_loop_t *loop, struct fetches *fetches);

/* Freed when the loop has run its closing callbacks. NULL is allowed. */
void hints_free(struct hints *hints);

/* The task may have changed. Over the cap of tasks the hint is dropped, and counted. */
void hints_take(struct hints *hints, const struct task *task);

#endif
