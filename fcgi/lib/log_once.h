/* log_once: what the log has been told already, so that each thing is said once, and only so many of them. */
#ifndef LOG_ONCE_H
#define LOG_ONCE_H

#include "lib/util.h"

enum { LOG_ONCE_MAX = 32 };

struct log_once {
    char *texts[LOG_ONCE_MAX];
    size_t n;
};

/* True when the text is new and may be said. An outsider who makes texts up is cut off after LOG_ONCE_MAX. */
bool log_once_new(struct log_once *said, const char *text);

/* No further text will be said. */
bool log_once_full(const struct log_once *said);

void log_once_done(struct log_once *said);

#endif
