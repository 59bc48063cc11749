/* expiry: see expiry.h.
 *
 * Every storage service writes the expiry into the query in its own way. A URL is taken apart once into the
 * parameters that mean something; then each scheme is asked, and the earliest answer counts. */
#include "task/expiry.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/evp.h>

#include "lib/json.h"
#include "config/pattern.h"

enum { VALUE_MAX = 2048 };

static const int64_t earliest_sensible = 1000000000; /* 2001 */
static const int64_t latest_sensible = 4102444800;   /* 2100 */

/* ---- dates ---- */

/* `n` digits as a number, or -1. */
static int digits(const char *text, int n)
{
    int value = 0;
    for (int i = 0; i < n; i++) {
        if (!isdigit((unsigned char)text[i]))
            return -1;
        value = value * 10 + text[i] - '0';
    }
    return value;
}

struct date {
    int year, month, day, hour, minute, second;
};

static int64_t date_seconds(const struct date *d)
{
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (d->year < 1970 || d->year > 9999 || d->month < 1 || d->month > 12 || d->day < 1 ||
        d->day > days[d->month - 1] || d->hour < 0 || d->hour > 23 || d->minute < 0 || d->minute > 59 ||
        d->second < 0 || d->second > 60)
        return 0;
    return utc_seconds(d->year, d->month, d->day, d->hour, d->minute, d->second);
}

/* Seconds east of UTC, from "Z", "", "+08:00" or "-0800"; false for anything else. */
static bool zone_offset(const char *text, int64_t *ret_seconds)
{
    *ret_seconds = 0;
    if (strcmp(text, "") == 0 || strcmp(text, "Z") == 0 || strcmp(text, "z") == 0)
        return true;
    if (text[0] != '+' && text[0] != '-')
        return false;
    int hours = digits(text + 1, 2);
    const char *rest = hours < 0 ? "" : text + 3 + (text[3] == ':');
    int minutes = digits(rest, 2);
    if (hours < 0 || hours > 14 || minutes < 0 || minutes > 59 || rest[2] != '\0')
        return false;
    *ret_seconds = (text[0] == '-' ? -1 : 1) * (hours * INT64_C(3600) + minutes * 60);
    return true;
}

static int64_t basic_date(const char *text)
{
    if (strlen(text) != 16 || text[8] != 'T' || text[15] != 'Z')
        return 0;
    struct date d = {digits(text, 4),     digits(text + 4, 2),  digits(text + 6, 2),
                     digits(text + 9, 2), digits(text + 11, 2), digits(text + 13, 2)};
    return date_seconds(&d);
}

int64_t iso8601_seconds(const char *text)
{
    size_t len = strlen(text);
    struct date d = {0};
    const char *rest = text + 10;
    bool separated = len >= 10 && text[4] == '-' && text[7] == '-';
    if (!separated)
        return basic_date(text);
    d = (struct date){.year = digits(text, 4), .month = digits(text + 5, 2), .day = digits(text + 8, 2)};
    if (len >= 16) { /* "T15:15", and perhaps ":46" and ".72" */
        separated = strchr("Tt ", text[10]) != NULL && text[13] == ':';
        d.hour = digits(text + 11, 2);
        d.minute = digits(text + 14, 2);
        rest = text + 16;
    }
    if (len >= 19 && *rest == ':') {
        d.second = digits(rest + 1, 2);
        rest += 3;
    }
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    int64_t offset;
    int64_t seconds = date_seconds(&d);
    if (!separated || seconds == 0 || !zone_offset(rest, &offset))
        return 0;
    return seconds - offset;
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

/* ---- the schemes: each returns seconds since 1970, or 0 when the URL is not of its kind ---- */

/* Azure shared access signature: expiry of the signature, and of the key that signed it. */
static int64_t azure_se(const char *query, char *value)
{
    return parameter(query, "se", value) ? iso8601_seconds(value) : 0;
}

static int64_t azure_ske(const char *query, char *value)
{
    return parameter(query, "ske", value) ? iso8601_seconds(value) : 0;
}

/* "<prefix>-Date" and, in seconds after it, "<prefix>-Expires". */
static int64_t dated(const char *query, char *value, const char *prefix)
{
    char name[32];
    snprintf(name, sizeof(name), "%s-Date", prefix);
    int64_t start = parameter(query, name, value) ? basic_date(value) : 0;
    snprintf(name, sizeof(name), "%s-Expires", prefix);
    int64_t seconds = parameter(query, name, value) ? number(value, 10) : 0;
    return start > 0 && seconds > 0 && seconds < earliest_sensible ? start + seconds : 0;
}

static int64_t amazon(const char *query, char *value)
{
    return dated(query, value, "X-Amz");
}

static int64_t volcano_tos(const char *query, char *value)
{
    return dated(query, value, "X-Tos");
}

static int64_t google(const char *query, char *value)
{
    return dated(query, value, "X-Goog");
}

/* Aliyun OSS: relative to a date in version 4, a time in version 2. */
static int64_t aliyun_oss(const char *query, char *value)
{
    if (!parameter(query, "x-oss-expires", value))
        return 0;
    int64_t seconds = number(value, 10);
    return seconds >= earliest_sensible ? seconds : dated(query, value, "x-oss");
}

/* Aliyun OSS version 1, CloudFront with a canned policy, and others. */
static int64_t expires(const char *query, char *value)
{
    return parameter(query, "Expires", value) ? number(value, 10) : 0;
}

static int64_t cloudfront_policy(const char *query, char *value)
{
    if (!parameter(query, "Policy", value))
        return 0;
    return number_in_base64_json(value, strlen(value), "+=/",
                                 "/Statement/0/Condition/DateLessThan/AWS:EpochTime");
}

static int64_t runway_jwt(const char *query, char *value)
{
    const char *payload = parameter(query, "_jwt", value) ? strchr(value, '.') : NULL;
    return payload ? number_in_base64_json(payload + 1, strcspn(payload + 1, "."), "+/~", "/exp") : 0;
}

/* "bce-auth-v1/ACCESS_KEY/2025-01-14T15:15:46Z/SECONDS/..." */
static int64_t baidu_bos(const char *query, char *value)
{
    if (!parameter(query, "authorization", value) || strncmp(value, "bce-auth-v1/", 12) != 0)
        return 0;
    char *rest = NULL;
    strtok_r(value + 12, "/", &rest);
    const char *date = strtok_r(NULL, "/", &rest), *seconds = strtok_r(NULL, "/", &rest);
    int64_t start = date && seconds ? iso8601_seconds(date) : 0;
    int64_t length = start > 0 ? number(seconds, 10) : 0;
    return length > 0 && length < earliest_sensible ? start + length : 0;
}

/* "START;END" */
static int64_t tencent_cos(const char *query, char *value)
{
    const char *end = parameter(query, "q-sign-time", value) ? strchr(value, ';') : NULL;
    return end ? number(end + 1, 10) : 0;
}

static int64_t discord_ex(const char *query, char *value)
{
    return parameter(query, "ex", value) && strlen(value) == 8 ? number(value, 16) : 0;
}

static int64_t qiniu_e(const char *query, char *value)
{
    return parameter(query, "e", value) && strlen(value) == 10 ? number(value, 10) : 0;
}

int64_t url_expiry(const char *url)
{
    static int64_t (*const schemes[])(const char *, char *) = {
        azure_se,          azure_ske,  amazon,    volcano_tos, google,     aliyun_oss, expires,
        cloudfront_policy, runway_jwt, baidu_bos, tencent_cos, discord_ex, qiniu_e};
    const char *query = strchr(url, '?');
    if (query == NULL)
        return 0;
    char value[VALUE_MAX];
    int64_t earliest = 0;
    for (size_t i = 0; i < NELEMS(schemes); i++) {
        int64_t at = schemes[i](query + 1, value);
        if (at >= earliest_sensible && at <= latest_sensible && (earliest == 0 || at < earliest))
            earliest = at;
    }
    return earliest;
}
