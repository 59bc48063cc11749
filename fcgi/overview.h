/* overview: all that an operator wants to see of a running taskproxy, on one screen. */
#ifndef OVERVIEW_H
#define OVERVIEW_H

#include "buf.h"
#include "health.h"

/* JSON, or plain text for people. */
void overview_print(const struct health *health, bool text, struct buf *out);

#endif
