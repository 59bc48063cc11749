/* target: see target.h. */
#include "cli/target.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "lib/buf.h"

enum { URL_MAX = 16384 };

static size_t scheme_len(const char *text)
{
    if (strncasecmp(text, "http://", 7) == 0)
        return 7;
    return strncasecmp(text, "https://", 8) == 0 ? 8 : 0;
}

/* Why it is no URL to be asked, or NULL. */
static const char *refuse_url(const char *url)
{
    const char *host = url + scheme_len(url);
    size_t authority = strcspn(host, "/?#");
    for (const char *c = url; *c != '\0'; c++) {
        if ((unsigned char)*c <= 0x20 || (unsigned char)*c >= 0x7f)
            return "must consist of visible ASCII characters";
    }
    if (host == url)
        return "must begin with http:// or https://";
    if (authority == 0 || host[0] == ':')
        return "has no host";
    if (memchr(host, '@', authority) != NULL)
        return "must not hold a name or password";
    return strlen(url) > URL_MAX ? "is too long" : NULL;
}

/* A provider's name, and an id that may have several parts. */
static bool is_task(const char *text)
{
    static const char of_names[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t provider = strspn(text, of_names);
    return provider > 0 && text[provider] == '/' && text[provider + 1] != '\0' && strlen(text) <= 1024;
}

static char *beneath(const char *base, const char *task)
{
    struct buf url;
    size_t len = strlen(base);
    while (len > 0 && base[len - 1] == '/')
        len--;
    buf_init(&url, 2 * URL_MAX);
    buf_add(&url, base, len);
    buf_puts(&url, "/v1/tasks");
    while (*task != '\0') {
        char *part = xstrndup(task, strcspn(task, "/"));
        buf_putc(&url, '/');
        buf_add_percent(&url, part);
        task += strlen(part);
        task += *task == '/';
        free(part);
    }
    return url.data;
}

char *target_url(const char *text, const char *base, char **ret_error)
{
    bool is_url = strstr(text, "://") != NULL;
    const char *why = refuse_url(is_url ? text : base);
    if (!is_url && !is_task(text))
        *ret_error = xasprintf("\"%s\" is neither a URL nor PROVIDER/ID", text);
    else if (why != NULL)
        *ret_error = xasprintf("\"%s\" %s", is_url ? text : base, why);
    else if (!is_url && strpbrk(base, "?#") != NULL)
        *ret_error = xasprintf("\"%s\" must have no query", base);
    else
        return is_url ? xstrndup(text, strcspn(text, "#")) : beneath(base, text);
    return NULL;
}
