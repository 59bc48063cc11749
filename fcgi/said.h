/* said: what the log has been told already, so that each thing is said once, and only so many of them. */
#ifndef SAID_H
#define SAID_H

#include "util.h"

enum { SAID_MAX = 32 };

struct said {
    char *texts[SAID_MAX];
    size_t n;
};

/* True when the text is new and may be said. An outsider who makes texts up is cut off after SAID_MAX. */
bool said_new(struct said *said, const char *text);

/* No further text will be said. */
bool said_full(const struct said *said);

void said_done(struct said *said);

#endif
