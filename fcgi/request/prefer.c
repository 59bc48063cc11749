/* prefer: see prefer.h. */
#include "request/prefer.h"

#include <string.h>
#include <strings.h>

#include "config/pattern.h"

/* The name at the beginning of a preference or a parameter that has a value. */
static bool is_named(const char *text, const char *name)
{
    size_t len = strlen(name);
    return strncasecmp(text, name, len) == 0 && (text[len] == '=' || text[len] == ' ' || text[len] == '\t');
}

/* A whole number of seconds, cut to the most; -1 when it is none. */
static int seconds_of(const char *text)
{
    int64_t seconds;
    if (strlen(text) > 18 || parse_int(text, &seconds) < 0)
        return -1;
    return seconds > PREFER_WAIT_MAX ? PREFER_WAIT_MAX : (int)seconds;
}

static bool query_has_wait(const char *query)
{
    for (const char *at = query; at != NULL; at = strchr(at, '&')) {
        at += *at == '&';
        if (strncmp(at, "wait", 4) == 0 && strchr("=&", at[4]) != NULL)
            return true;
    }
    return false;
}

/* Up to the next comma that does not stand in quotes. */
static size_t item_len(const char *text)
{
    bool quoted = false;
    size_t len = 0;
    for (; text[len] != '\0' && (quoted || text[len] != ','); len++) {
        if (text[len] == '"')
            quoted = !quoted;
        else if (quoted && text[len] == '\\' && text[len + 1] != '\0')
            len++;
    }
    return len;
}

/* The value of a preference, "" for none. They are separated by commas, their parameters by semicolons; of two equal ones
 * the first counts. */
static void find_preference(const char *prefer, const char *name, char *value, size_t size)
{
    value[0] = '\0';
    for (const char *at = prefer; at != NULL && *at != '\0';) {
        at += strspn(at, " \t,");
        size_t len = item_len(at);
        if (is_named(at, name)) {
            const char *text = memchr(at, '=', len);
            if (text == NULL)
                return;
            text += 1 + strspn(text + 1, " \t\"");
            size_t text_len = strcspn(text, " \t\",;");
            if (text_len >= size)
                return;
            memcpy(value, text, text_len);
            value[text_len] = '\0';
            return;
        }
        at += len;
    }
}

static int wait_of_header(const char *prefer)
{
    char value[24];
    find_preference(prefer, "wait", value, sizeof(value));
    int seconds = seconds_of(value);
    return seconds < 0 ? 0 : seconds;
}

bool prefer_unified(const char *prefer)
{
    char value[24];
    find_preference(prefer, "view", value, sizeof(value));
    return strcasecmp(value, "unified") == 0;
}

int prefer_wait(const char *query, const char *prefer)
{
    char value[64];
    if (!query_has_wait(query))
        return wait_of_header(prefer);
    if (!query_value(query, "wait", value, sizeof(value)))
        return -1;
    return seconds_of(value);
}

/* "q=0" or "q=0.000" among the parameters. */
static bool is_refused(const char *parameters, size_t len)
{
    for (const char *at = memchr(parameters, ';', len); at != NULL;) {
        at += 1 + strspn(at + 1, " \t");
        size_t left = len - (size_t)(at - parameters);
        if (left >= 3 && strncasecmp(at, "q=0", 3) == 0)
            return strspn(at + 3, ".0") == strcspn(at + 3, " \t,;");
        at = memchr(at, ';', left);
    }
    return false;
}

bool prefer_event_stream(const char *accept)
{
    static const char type[] = "text/event-stream";
    for (const char *at = accept; at != NULL && *at != '\0';) {
        at += strspn(at, " \t,");
        size_t len = strcspn(at, ",");
        if (strncasecmp(at, type, strlen(type)) == 0 && strchr(" \t,;", at[strlen(type)]) != NULL)
            return !is_refused(at, len);
        at += len;
    }
    return false;
}
