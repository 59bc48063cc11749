/* log_once: see log_once.h. */
#include "lib/log_once.h"

#include <stdlib.h>
#include <string.h>

bool log_once_new(struct log_once *said, const char *text)
{
    if (log_once_full(said))
        return false;
    for (size_t i = 0; i < said->n; i++) {
        if (strcmp(said->texts[i], text) == 0)
            return false;
    }
    said->texts[said->n++] = xstrdup(text);
    return true;
}

bool log_once_full(const struct log_once *said)
{
    return said->n == LOG_ONCE_MAX;
}

void log_once_done(struct log_once *said)
{
    for (size_t i = 0; i < said->n; i++)
        free(said->texts[i]);
    said->n = 0;
}
