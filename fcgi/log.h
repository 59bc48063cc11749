/* log: one line per event on stderr, each written at once so that lines of several processes never mix.
 *
 * Layers 0 and 1 return reasons and do not log. Secrets and bodies are never given to this file. */
#ifndef LOG_H
#define LOG_H

#include "util.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Of the process: what is written, and what each line is marked with ("worker 1"; NULL for none). */
void log_setup(enum log_level least, const char *who);

void log_line(enum log_level level, const char *format, ...) PRINTF(2, 3);

/* Whether a line of that level would be written: to save the work of making it. */
bool log_wants(enum log_level level);

#define log_debug(...)                                                                                       \
    do {                                                                                                     \
        if (log_wants(LOG_DEBUG))                                                                            \
            log_line(LOG_DEBUG, __VA_ARGS__);                                                                \
    } while (0)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

#endif
