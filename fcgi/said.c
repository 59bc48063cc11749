/* said: see said.h. */
#include "said.h"

#include <stdlib.h>
#include <string.h>

bool said_new(struct said *said, const char *text)
{
    if (said_full(said))
        return false;
    for (size_t i = 0; i < said->n; i++) {
        if (strcmp(said->texts[i], text) == 0)
            return false;
    }
    said->texts[said->n++] = xstrdup(text);
    return true;
}

bool said_full(const struct said *said)
{
    return said->n == SAID_MAX;
}

void said_done(struct said *said)
{
    for (size_t i = 0; i < said->n; i++)
        free(said->texts[i]);
    said->n = 0;
}
