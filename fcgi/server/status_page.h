/* status_page: all that an operator wants to see of a running taskproxy, on one screen. */
#ifndef STATUS_PAGE_H
#define STATUS_PAGE_H

#include "lib/buf.h"
#include "server/health.h"

/* JSON, or plain text for people. */
void status_page_print(const struct health *health, bool text, struct buf *out);

#endif
