/* refusal: closes every connection to a listening socket that nobody serves for a while, so that the web server goes
 * elsewhere. */
#ifndef REFUSAL_H
#define REFUSAL_H

#include <uv.h>

#include "lib/util.h"

struct refusal;

/* `fd` (ref) outlives it. Unless `closes`, connections are left to whoever else serves the socket. */
struct refusal *refusal_new(uv_loop_t *loop, int fd, bool closes);

/* Freed when the loop has run its closing callbacks. */
void refusal_free(struct refusal *refusal);

#endif
