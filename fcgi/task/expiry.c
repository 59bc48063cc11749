/* expiry: see expiry.h.
 *
 * Every storage service writes the expiry into the query in its own way; one table has them all. */
#include "task/expiry.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <openssl/evp.h>

#include "lib/json.h"
#include "config/pattern.h"

enum { VALUE_MAX = 2048 };

static const int64_t earliest_sensible = 1000000000; /* 2001 */
static const int64_t latest_sensible = 4102444800;   /* 2100 */

/* ---- dates ---- */

/* "20250114T151546Z"; 0 for anything else. */
static int64_t basic_date(const char *text)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y%m%dT%H%M%SZ", &tm);
    return rest != NULL && *rest == '\0' ? timegm(&tm) : 0;
}

int64_t iso8601_seconds(const char *text)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%d", &tm);
    struct tm day = tm;
    if (rest == NULL)
        return basic_date(text);
    timegm(&day); /* makes 30 February a day in March */
    if (*rest != '\0' && strchr("Tt ", *rest) != NULL)
        rest = strptime(rest + 1, "%H:%M", &tm);
    if (rest != NULL && *rest == ':')
        rest = strptime(rest + 1, "%S", &tm);
    if (rest != NULL && *rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    if (rest != NULL && *rest != '\0')
        rest = strchr("Z+-", *rest) != NULL ? strptime(rest, "%z", &tm) : NULL;
    const int64_t offset = tm.tm_gmtoff; /* timegm ignores and clears it */
    if (rest == NULL || *rest != '\0' || day.tm_mday != tm.tm_mday || llabs(offset) > 14 * 3600)
        return 0;
    int64_t seconds = timegm(&tm) - offset;
    return seconds > 0 ? seconds : 0;
}

/* ---- the query ---- */

/* Reads the value of a parameter; its name is case-insensitive. False if it is absent or malformed. */
static bool parameter(const char *query, const char *name, char value[static VALUE_MAX])
{
    size_t name_len = strlen(name);
    while (*query != '\0') {
        size_t len = strcspn(query, "&#");
        if (len > name_len && query[name_len] == '=' && strncasecmp(query, name, name_len) == 0)
            return percent_decode(query + name_len + 1, len - name_len - 1, value, VALUE_MAX) == 0;
        if (query[len] != '&')
            return false;
        query += len + 1;
    }
    return false;
}

/* 0 for anything but a number of at most 16 digits. */
static int64_t number(const char *text, int base)
{
    char *end;
    if (!isxdigit((unsigned char)text[0]) || strlen(text) > 16)
        return 0;
    long long value = strtoll(text, &end, base);
    return *end == '\0' ? value : 0;
}

/* Reads a number from a base64-encoded JSON document. `alphabet` has the characters that '-', '_' and '~' replace. */
static int64_t number_in_base64_json(const char *text, size_t len, const char *alphabet, const char *pointer)
{
    static const char specials[] = "-_~";
    unsigned char in[VALUE_MAX + 4], out[VALUE_MAX + 4];
    if (len == 0 || len > VALUE_MAX)
        return 0;
    for (size_t i = 0; i < len; i++) {
        const char *special = strchr(specials, text[i]);
        in[i] = (unsigned char)(special != NULL ? alphabet[special - specials] : text[i]);
    }
    while (len % 4 != 0)
        in[len++] = '=';
    int out_len = EVP_DecodeBlock(out, in, (int)len);
    while (out_len > 0 && out[out_len - 1] == '\0')
        out_len--; /* decoded padding */
    struct json_error error;
    struct json_object *doc =
        out_len > 0 ? json_read((char *)out, (size_t)out_len, 16, JSON_PLAIN, &error) : NULL;
    struct json_object *value = NULL;
    int64_t result = 0;
    if (doc != NULL && json_pointer_get(doc, pointer, &value) == 0 &&
        json_object_is_type(value, json_type_int))
        result = json_object_get_int64(value);
    json_object_put(doc);
    return result;
}

/* ---- the schemes: a function reads the value of one parameter, and returns 0 for any other form ---- */

static int64_t decimal(const char *value)
{
    return number(value, 10);
}

static int64_t after(int64_t start, int64_t seconds)
{
    return start > 0 && seconds > 0 && seconds < earliest_sensible ? start + seconds : 0;
}

static int64_t cloudfront_policy(const char *value)
{
    return number_in_base64_json(value, strlen(value), "+=/",
                                 "/Statement/0/Condition/DateLessThan/AWS:EpochTime");
}

static int64_t runway_jwt(const char *value)
{
    const char *payload = strchr(value, '.');
    return payload ? number_in_base64_json(payload + 1, strcspn(payload + 1, "."), "+/~", "/exp") : 0;
}

/* "bce-auth-v1/ACCESS_KEY/2025-01-14T15:15:46Z/SECONDS/..." */
static int64_t baidu_bos(const char *value)
{
    char date[32], seconds[16];
    if (sscanf(value, "bce-auth-v1/%*[^/]/%31[^/]/%15[0-9]", date, seconds) != 2)
        return 0;
    return after(iso8601_seconds(date), decimal(seconds));
}

/* "START;END" */
static int64_t tencent_cos(const char *value)
{
    const char *end = strchr(value, ';');
    return end ? decimal(end + 1) : 0;
}

static int64_t discord(const char *value)
{
    return strlen(value) == 8 ? number(value, 16) : 0;
}

static int64_t qiniu(const char *value)
{
    return strlen(value) == 10 ? decimal(value) : 0;
}

static const struct {
    const char *name; /* of the parameter, in any case */
    int64_t (*read)(const char *value);
    const char *start; /* the parameter with the date from which a small number counts seconds, or NULL */
} schemes[] = {
    {"se", iso8601_seconds, NULL},  /* Azure's shared access signature ... */
    {"ske", iso8601_seconds, NULL}, /* ... and the key that signed it */
    {"X-Amz-Expires", decimal, "X-Amz-Date"},
    {"X-Tos-Expires", decimal, "X-Tos-Date"}, /* Volcano */
    {"X-Goog-Expires", decimal, "X-Goog-Date"},
    {"x-oss-expires", decimal,
     "x-oss-date"},             /* Aliyun OSS: relative to a date in version 4, a time in version 2 */
    {"Expires", decimal, NULL}, /* Aliyun OSS version 1, CloudFront with a canned policy, others */
    {"Policy", cloudfront_policy, NULL},
    {"_jwt", runway_jwt, NULL},
    {"authorization", baidu_bos, NULL},
    {"q-sign-time", tencent_cos, NULL},
    {"ex", discord, NULL},
    {"e", qiniu, NULL},
};

int64_t url_expiry(const char *url)
{
    const char *query = strchr(url, '?');
    char value[VALUE_MAX];
    int64_t earliest = 0;
    for (size_t i = 0; query != NULL && i < NELEMS(schemes); i++) {
        int64_t at = parameter(query + 1, schemes[i].name, value) ? schemes[i].read(value) : 0;
        if (at > 0 && at < earliest_sensible && schemes[i].start != NULL)
            at = parameter(query + 1, schemes[i].start, value) ? after(basic_date(value), at) : 0;
        if (at >= earliest_sensible && at <= latest_sensible && (earliest == 0 || at < earliest))
            earliest = at;
    }
    return earliest;
}
