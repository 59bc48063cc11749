/* log: one line per event on stderr, each written at once so that lines of several processes never mix. Where stderr is the
 * systemd journal, a line has its priority in front.
 *
 * Layers 0 and 1 return reasons and do not log. Secrets and bodies are never given to this file. What comes from outside may
 * be: a line stays a line (sanitize.h). Lines above debug are kept from being too many (log_ratelimit.h). */
#ifndef LOG_H
#define LOG_H

#include "lib/logline.h"

/* How often, at least, log_tick wants to be called. */
enum { LOG_TICK_MS = 1000 };

/* Of the process: what is written, how, and what each line is marked with ("worker 1"; NULL for nothing). */
void log_setup(enum log_level least, enum log_format format, const char *who);

void log_line(enum log_level level, const char *format, ...) PRINTF(2, 3);

/* Tells of what was kept back, when its time has come; log_finish: of all of it, before the process ends. */
void log_tick(void);
void log_finish(void);

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
