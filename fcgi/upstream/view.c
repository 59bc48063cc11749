/* view: see view.h.
 *
 *     view_read:  parse -> missing? refused? busy? error? -> status -> native view -> unified view
 *
 * The views are written straight from the parsed document: members that the keep list does not name are never
 * copied. */
#include "upstream/view.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <openssl/evp.h>

enum { MAX_DEPTH = 32, VIEW_MAX = 8 * 1024 * 1024, PATH_NAME_MAX = 512, PATH_MAX_BYTES = 4096 };
enum { MAX_RESULTS = 256, PARAMETER_MAX = 2048 };

static const int64_t beijing_offset = 8 * 3600;
static const int64_t earliest_sensible = 1000000000; /* 2001 */
static const int64_t latest_sensible = 4102444800;   /* 2100 */

/* ---- secrets ---- */

/* The first occurrence of any secret, or NULL; the longest one there, as one secret may begin with another. */
static const char *find(const struct secrets *secrets, const char *text, size_t len, size_t *ret_len)
{
    const char *first = NULL;
    for (size_t i = 0; secrets != NULL && secrets->items[i] != NULL; i++) {
        size_t secret_len = strlen(secrets->items[i]);
        const char *hit = secret_len > 0 ? memmem(text, len, secrets->items[i], secret_len) : NULL;
        if (hit != NULL && (first == NULL || hit < first || (hit == first && secret_len > *ret_len))) {
            first = hit;
            *ret_len = secret_len;
        }
    }
    return first;
}

void view_add_string(struct buf *out, const char *text, size_t len, const struct secrets *secrets)
{
    size_t secret_len = 0;
    const char *hit = find(secrets, text, len, &secret_len);
    if (hit == NULL) {
        buf_add_json_string(out, text, len);
        return;
    }
    struct buf clean;
    buf_init(&clean, out->max);
    for (; hit != NULL; hit = find(secrets, text, len, &secret_len)) {
        buf_add(&clean, text, (size_t)(hit - text));
        buf_puts(&clean, "[redacted]");
        len -= (size_t)(hit - text) + secret_len;
        text = hit + secret_len;
    }
    buf_add(&clean, text, len);
    buf_add_json_string(out, clean.data, clean.len);
    out->failed |= clean.failed;
    buf_done(&clean);
}

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

/* ---- the expiry of signed URLs ----
 *
 * Every storage service writes it into the query in its own way; one table has them all. */

/* Reads the value of a parameter; its name is case-insensitive. False if it is absent or malformed. */
static bool parameter(const char *query, const char *name, char value[static PARAMETER_MAX])
{
    size_t name_len = strlen(name);
    while (*query != '\0') {
        size_t len = strcspn(query, "&#");
        if (len > name_len && query[name_len] == '=' && strncasecmp(query, name, name_len) == 0)
            return percent_decode(query + name_len + 1, len - name_len - 1, value, PARAMETER_MAX) == 0;
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
    unsigned char in[PARAMETER_MAX + 4], out[PARAMETER_MAX + 4];
    if (len == 0 || len > PARAMETER_MAX)
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

/* The functions of the schemes read the value of one parameter, and return 0 for any other form. */

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
    char value[PARAMETER_MAX];
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

/* ---- the kind of answer ---- */

static bool is_empty(struct json_object *value)
{
    switch (json_object_get_type(value)) {
    case json_type_null:
        return true;
    case json_type_string:
        return json_object_get_string_len(value) == 0;
    case json_type_array:
        return json_object_array_length(value) == 0;
    case json_type_object:
        return json_object_object_length(value) == 0;
    default:
        return false;
    }
}

static bool hold(const struct list *conditions, bool all, int http_status, struct json_object *doc);

static bool holds(const struct condition *condition, int http_status, struct json_object *doc)
{
    if (condition->http != 0 && condition->http != http_status)
        return false;
    if (condition->at.n_segments == 0)
        return hold(&condition->also, true, http_status, doc);
    if (doc == NULL)
        return false; /* the body is not JSON */
    struct json_object *value = NULL;
    bool there = json_at(doc, &condition->at, NULL, &value);
    if (condition->is == PRESENCE_FILLED && (!there || is_empty(value)))
        return false;
    if (condition->is == PRESENCE_EMPTY && there && !is_empty(value))
        return false;
    if (condition->equals.n > 0 && !(there && scalar_is_among(value, &condition->equals)))
        return false;
    return hold(&condition->also, true, http_status, doc);
}

/* Whether one of the conditions holds, or with `all` each of them. */
static bool hold(const struct list *conditions, bool all, int http_status, struct json_object *doc)
{
    const struct condition *items = conditions->items;
    for (size_t i = 0; i < conditions->n; i++) {
        if (holds(&items[i], http_status, doc) != all)
            return !all;
    }
    return all;
}

static bool any_holds(const struct list *conditions, int http_status, struct json_object *doc)
{
    return hold(conditions, false, http_status, doc);
}

/* Refusals are recognised first; the remaining answers describe a task. `doc` is NULL if the body is not
 * JSON. */
static enum outcome classify(const struct provider *p, const struct condition *ok, int http_status,
                             struct json_object *doc, struct view *view)
{
    if (any_holds(&p->missing, http_status, doc))
        return OUTCOME_MISSING;
    if (http_status == 401 || http_status == 403 || any_holds(&p->refused, http_status, doc))
        return http_status == 403 ? OUTCOME_FORBIDDEN : OUTCOME_REFUSED;
    if (http_status == 429 || any_holds(&p->busy, http_status, doc))
        return OUTCOME_BUSY;
    if (http_status >= 300 && http_status < 400) {
        view->why = "a redirect";
        return OUTCOME_INVALID;
    }
    if (http_status < 200 || http_status >= 300) {
        view->why = NULL; /* the status is enough */
        return http_status >= 500 ? OUTCOME_SERVER_ERROR : OUTCOME_ERROR;
    }
    if (!json_object_is_type(doc, json_type_object)) {
        view->why = view->why ? view->why : "not a JSON object";
        return OUTCOME_INVALID;
    }
    if (!holds(ok, http_status, doc)) {
        view->why = "an application error";
        return OUTCOME_ERROR;
    }
    return OUTCOME_OK;
}

/* The status value for the log, without secrets: a hostile upstream could send our key as a status. */
static void write_status(const struct view_input *q, struct json_object *value, struct view *view)
{
    struct buf text;
    bool string = json_object_is_type(value, json_type_string);
    const char *status = string ? json_object_get_string(value) : json_object_to_json_string(value);
    buf_init(&text, VIEW_MAX);
    view_add_string(&text, status, strlen(status), q->secrets);
    snprintf(view->status, sizeof(view->status), "%s", text.data);
    buf_done(&text);
}

static bool read_state(const struct view_input *q, int http_status, struct json_object *doc,
                       struct view *view)
{
    const struct provider *p = q->provider;
    struct json_object *value = NULL;
    bool there = json_at(doc, &p->status.at, NULL, &value);
    enum state state = there ? provider_state_of(p, value) : STATE_NONE;
    if (state == STATE_NONE && value == NULL)
        state = (enum state)p->status.absent;
    view->known = state != STATE_NONE;
    write_status(q, value, view);
    if (!view->known) {
        bool scalar = value != NULL && !json_object_is_type(value, json_type_object) &&
                      !json_object_is_type(value, json_type_array);
        view->state = STATE_RUNNING;
        return scalar; /* otherwise this is some other document */
    }
    const struct status_exception *exceptions = p->status.exceptions.items;
    for (size_t i = 0; i < p->status.exceptions.n; i++) {
        if (exceptions[i].from == (int)state && holds(&exceptions[i].when, http_status, doc)) {
            state = (enum state)exceptions[i].state;
            break;
        }
    }
    view->state = state;
    return true;
}

/* ---- the native view ---- */

/* What the two views are written with. */
struct writer {
    const struct view_input *q;
    struct json_object *doc;
    struct view *view;
    struct buf *out;
    size_t n_results; /* written so far */
    bool keyed;       /* one of them needs the key */
    bool own_urls;    /* such results have the upstream's own URLs */
};

/* The keep paths that begin with the segments read so far; they are adjacent in the provider's list. */
struct keep {
    const struct json_path *paths;
    size_t n;
    size_t depth; /* segments read */
};

static void note_expiry(struct writer *w, int64_t at)
{
    if (at != 0 && (w->view->urls_expire_at == 0 || at < w->view->urls_expire_at))
        w->view->urls_expire_at = at;
}

static void copy_string(struct writer *w, const char *text, size_t len)
{
    if (strncmp(text, "http", 4) == 0)
        note_expiry(w, url_expiry(text));
    view_add_string(w->out, text, len, w->q->secrets);
}

static bool copy_kept(struct writer *w, struct json_object *value, const struct keep *keep);

static bool is_leaf(const struct keep *keep)
{
    return keep->n == 1 && keep->paths->n_segments == keep->depth;
}

/* The paths on which a member of that name lies; for a leaf the leaf itself, since everything below it is kept. */
static struct keep keep_for(const struct keep *keep, const char *name)
{
    struct keep member = {.depth = keep->depth + 1};
    if (is_leaf(keep))
        return *keep;
    for (size_t i = 0; i < keep->n; i++) {
        if (strcmp(keep->paths[i].segments[keep->depth], name) == 0 && member.n++ == 0)
            member.paths = &keep->paths[i];
    }
    return member;
}

/* Copies a member of an object, or with NULL as its name an element of an array. */
static void copy_member(struct writer *w, const char *name, struct json_object *value,
                        const struct keep *keep, const char **separator)
{
    const size_t before = w->out->len;
    buf_puts(w->out, *separator);
    if (name != NULL) {
        copy_string(w, name, strlen(name));
        buf_putc(w->out, ':');
    }
    if (copy_kept(w, value, keep))
        *separator = ",";
    else
        w->out->len = before;
}

static void copy_object(struct writer *w, struct json_object *object, const struct keep *keep)
{
    const char *separator = "";
    buf_putc(w->out, '{');
    json_object_object_foreach(object, name, member)
    {
        const struct keep kept = keep_for(keep, name);
        if (kept.n > 0)
            copy_member(w, name, member, &kept, &separator);
    }
    buf_putc(w->out, '}');
}

static void copy_array(struct writer *w, struct json_object *array, const struct keep *element)
{
    const char *separator = "";
    buf_putc(w->out, '[');
    for (size_t i = 0; i < json_object_array_length(array); i++)
        copy_member(w, NULL, json_object_array_get_idx(array, i), element, &separator);
    buf_putc(w->out, ']');
}

/* Returns false if the value does not have the form that the list describes; the output is then to be
 * discarded. For example, a string in place of an object could contain anything. A null is kept: it means
 * that the value is not known yet. */
static bool copy_kept(struct writer *w, struct json_object *value, const struct keep *keep)
{
    const struct keep element = keep_for(keep, "*");
    bool leaf = is_leaf(keep), names = keep->n > element.n;
    switch (json_object_get_type(value)) {
    case json_type_object:
        if (leaf || names)
            copy_object(w, value, keep);
        return leaf || names;
    case json_type_array:
        if (element.n > 0)
            copy_array(w, value, &element);
        return element.n > 0;
    case json_type_string:
        if (leaf)
            copy_string(w, json_object_get_string(value), (size_t)json_object_get_string_len(value));
        return leaf;
    case json_type_null:
        buf_puts(w->out, "null");
        return true;
    default:
        if (leaf)
            buf_puts(w->out, json_object_to_json_string(value));
        return leaf;
    }
}

/* ---- the unified view ----
 *
 * It has every member; unknown values are null, and so are values of another type than the provider file says. */

/* A number, or a string that is a number with the suffix. */
static bool number_of(struct json_object *value, const char *suffix, double *ret)
{
    if (json_object_is_type(value, json_type_int) || json_object_is_type(value, json_type_double)) {
        *ret = json_object_get_double(value);
        return isfinite(*ret);
    }
    const char *text = json_text(value);
    if (text == NULL || text[0] == '\0' || strlen(text) > 32)
        return false;
    char *end;
    *ret = strtod(text, &end);
    return end != text && strcmp(end, suffix) == 0 && isfinite(*ret);
}

static int64_t time_of(struct json_object *doc, const struct time_field *field)
{
    struct json_object *value = NULL;
    double number;
    int64_t seconds = 0;
    if (field->at.n_segments == 0 || !json_at(doc, &field->at, NULL, &value))
        return 0;
    if (field->form == TIME_ISO8601 || field->form == TIME_BEIJING) {
        const char *text = json_text(value);
        seconds = text ? iso8601_seconds(text) : 0;
        if (seconds != 0 && field->form == TIME_BEIJING)
            seconds -= beijing_offset;
    } else if (number_of(value, "", &number) && number > 0 && number < 1e15) {
        seconds = (int64_t)(field->form == TIME_UNIX_MILLISECONDS ? number / 1000 : number);
    }
    seconds += seconds > 0 ? field->plus_ms / 1000 : 0;
    /* Years of four digits only, or the text would not be RFC 3339. */
    return seconds > 0 && seconds < 253402300800 ? seconds : 0;
}

static void write_time(struct buf *out, const char *name, int64_t seconds)
{
    char text[32];
    if (seconds == 0) {
        buf_addf(out, ",\"%s\":null", name);
        return;
    }
    utc_text(seconds, text);
    buf_addf(out, ",\"%s\":\"%s\"", name, text);
}

static void write_progress(struct writer *w)
{
    const struct progress_field *field = &w->q->provider->unified.progress;
    struct json_object *value = NULL;
    double number;
    buf_puts(w->out, ",\"progress\":");
    bool there = field->at.n_segments > 0 && json_at(w->doc, &field->at, NULL, &value) &&
                 number_of(value, field->form == PROGRESS_PERCENT_TEXT ? "%" : "", &number);
    if (w->view->state == STATE_SUCCEEDED) {
        buf_puts(w->out, "100");
    } else if (there) {
        number *= field->form == PROGRESS_FRACTION ? 100 : 1;
        buf_addf(w->out, "%d", number < 0 ? 0 : number > 100 ? 100 : (int)lround(number));
    } else {
        buf_puts(w->out, "null");
    }
}

static void write_error(struct writer *w)
{
    const struct list *paths = &w->q->provider->unified.error;
    bool ended_badly = w->view->state == STATE_FAILED || w->view->state == STATE_CANCELLED;
    buf_puts(w->out, ",\"error\":");
    for (size_t i = 0; i < paths->n && ended_badly; i++) {
        const struct json_path *path = (struct json_path *)paths->items + i;
        struct json_object *value = NULL;
        const char *text = json_at(w->doc, path, NULL, &value) ? json_text(value) : NULL;
        if (text == NULL || text[0] == '\0')
            continue;
        view_add_string(w->out, text, strlen(text), w->q->secrets);
        return;
    }
    buf_puts(w->out, "null");
}

/* Writes a non-negative number as received, or null. */
static void write_number(struct writer *w, const char *name, const struct json_path *path,
                         const size_t *indices)
{
    struct json_object *value = NULL;
    double number;
    buf_addf(w->out, ",\"%s\":", name);
    if (path->n_segments == 0 || !json_at(w->doc, path, indices, &value) || !number_of(value, "", &number) ||
        number < 0)
        buf_puts(w->out, "null");
    else if (json_object_is_type(value, json_type_string))
        buf_addf(w->out, "%.15g", number);
    else
        buf_puts(w->out, json_object_to_json_string(value));
}

/* The reference to the result itself, under which request/content.c finds it. */
static void write_content(struct writer *w)
{
    if (w->q->unnamed) {
        buf_puts(w->out, "null");
        return;
    }
    buf_addf(w->out, "\"/v1/tasks/%s", w->q->provider->name);
    for (const char *at = w->q->task_id; *at != '\0';) {
        char value[TASK_ID_MAX];
        size_t len = strcspn(at, "/");
        snprintf(value, sizeof(value), "%.*s", (int)len, at);
        buf_putc(w->out, '/');
        buf_add_percent(w->out, value);
        at += len + (at[len] == '/');
    }
    buf_addf(w->out, "/content/%zu\"", w->n_results);
}

static void write_result(struct writer *w, const struct result_field *field, const char *url,
                         const size_t *indices)
{
    bool keyed = result_takes_key(field, w->q->base_url, url),
         own_url = !keyed || w->own_urls || w->q->unnamed;
    w->keyed |= keyed;
    buf_addf(w->out, "%s{\"type\":", w->n_results > 0 ? "," : "");
    buf_add_json_string(w->out, field->type, strlen(field->type));
    buf_puts(w->out, ",\"url\":");
    if (own_url)
        view_add_string(w->out, url, strlen(url), w->q->secrets);
    else
        write_content(w);
    buf_puts(w->out, ",\"content\":");
    write_content(w);
    if (keyed && own_url)
        buf_puts(w->out, ",\"needs_key\":true");
    write_number(w, "width", &field->width, indices);
    write_number(w, "height", &field->height, indices);
    write_number(w, "duration_seconds", &field->duration_seconds, indices);
    write_number(w, "bytes", &field->bytes, indices);
    buf_putc(w->out, '}');
    w->n_results++;
}

/* Follows the URL's path from `segment` on, visiting every member at a star; `indices` are the current ones. */
static void each_url(struct writer *w, const struct result_field *field, struct json_object *value,
                     size_t segment, size_t *indices, size_t n_indices)
{
    const struct json_path *path = &field->url;
    if (segment == path->n_segments) {
        const char *url = json_text(value);
        if (url != NULL && strstr(url, "://") != NULL && w->n_results < MAX_RESULTS)
            write_result(w, field, url, indices);
    } else if (!json_path_is_star(path, segment)) {
        if (json_member(value, path->segments[segment], &value))
            each_url(w, field, value, segment + 1, indices, n_indices);
    } else if (json_object_is_type(value, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(value) && w->n_results < MAX_RESULTS; i++) {
            indices[n_indices] = i;
            each_url(w, field, json_object_array_get_idx(value, i), segment + 1, indices, n_indices + 1);
        }
    }
}

/* A string, or an integer as text; NULL for anything else. It belongs to the document. */
static const char *scalar_text(struct json_object *value)
{
    return json_object_is_type(value, json_type_int) ? json_object_get_string(value) : json_text(value);
}

/* Writes a path with variables of the task and members of the answer filled in. */
static bool write_path(const struct view_input *q, const char *path, struct json_object *doc, struct buf *out)
{
    const struct provider *p = q->provider;
    for (const char *at = path; *at != '\0';) {
        size_t plain = strcspn(at, "{");
        buf_add(out, at, plain);
        at += plain;
        if (*at == '\0')
            break;
        char name[PATH_NAME_MAX], value[TASK_ID_MAX];
        size_t len = strcspn(++at, "}");
        snprintf(name, sizeof(name), "%.*s", (int)len, at);
        at += len + 1;
        struct json_object *member = NULL;
        const char *text = value;
        if (name[0] == '/')
            text = json_pointer_get(doc, name, &member) == 0 ? scalar_text(member) : NULL;
        else if (!pattern_variable(&p->path, name, q->task_id, value, sizeof(value)))
            text = NULL;
        if (text == NULL || text[0] == '\0' || strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
            return false;
        buf_add_percent(out, text);
    }
    return !out->failed;
}

/* The result of which the answer has no URL. */
static void write_at_path(struct writer *w, const struct result_field *field)
{
    const size_t indices[JSON_PATH_SEGMENTS] = {0};
    struct buf url;
    buf_init(&url, PATH_MAX_BYTES);
    buf_puts(&url, w->q->base_url ? w->q->base_url : "");
    if (write_path(w->q, field->path, w->doc, &url))
        write_result(w, field, url.data, indices);
    buf_done(&url);
}

static void write_results(struct writer *w)
{
    const struct list *fields = &w->q->provider->unified.results;
    buf_puts(w->out, ",\"results\":[");
    for (size_t i = 0; i < fields->n && w->view->state == STATE_SUCCEEDED; i++) {
        size_t indices[JSON_PATH_SEGMENTS] = {0};
        const struct result_field *field = (struct result_field *)fields->items + i;
        each_url(w, field, w->doc, 0, indices, 0);
        if (field->path != NULL && w->n_results == 0)
            write_at_path(w, field);
    }
    buf_putc(w->out, ']');
}

static void write_unified(struct writer *w, enum view_kind kind)
{
    const struct unified_fields *u = &w->q->provider->unified;
    const enum state state = w->view->state;
    struct buf *out = w->out = &w->view->views[kind];
    w->n_results = 0;
    w->own_urls = kind == VIEW_KEYED;
    buf_puts(out, "{\"provider\":");
    buf_add_json_string(out, w->q->provider->name, strlen(w->q->provider->name));
    buf_puts(out, ",\"task_id\":");
    buf_add_json_string(out, w->q->task_id, strlen(w->q->task_id));
    buf_addf(out, ",\"status\":\"%s\"", state_name(state));
    write_progress(w);
    write_error(w);
    write_time(out, "created_at", w->view->created_at);
    write_time(out, "started_at", time_of(w->doc, &u->started_at));
    /* Some providers only give the time of the last change: for an ended task, that is its end. */
    write_time(out, "finished_at", state_ended(state) ? time_of(w->doc, &u->finished_at) : 0);
    write_results(w);
    write_time(out, "results_expire_at", w->view->urls_expire_at);
    buf_putc(out, '}');
}

/* ---- the second answer ---- */

/* The second answer becomes a member of the first. */
static enum outcome join_result(const struct view_input *q, struct json_object *doc,
                                const struct view_answer *result, struct view *view)
{
    const struct result_query *query = &q->provider->result;
    struct json_error error;
    struct json_object *second = json_read(result->body, result->len, MAX_DEPTH, JSON_PLAIN, &error);
    enum outcome outcome = OUTCOME_OK;
    if (second == NULL)
        view->why = error.why;
    if (second != NULL && any_holds(&query->failed, result->http_status, second))
        view->state = STATE_FAILED;
    else
        outcome = classify(q->provider, &query->ok, result->http_status, second, view);
    if (outcome == OUTCOME_OK)
        json_object_object_add(doc, query->into, json_object_get(second));
    json_object_put(second);
    return outcome;
}

static enum outcome read_result(const struct view_input *q, struct json_object *doc,
                                const struct view_answer *result, struct view *view)
{
    if (q->provider->result.path == NULL || view->state != STATE_SUCCEEDED)
        return OUTCOME_OK;
    if (result != NULL)
        return join_result(q, doc, result, view);
    if (write_path(q, q->provider->result.path, doc, &view->result_path))
        return OUTCOME_PARTIAL;
    view->why = "no reference to the result";
    return OUTCOME_INVALID;
}

/* ---- the identity ---- */

/* Some upstreams repeat the id as it was requested: a UUID is compared in lower case, a number without leading
 * zeros. */
static void write_identity(const struct provider *p, struct json_object *doc, char out[static IDENTITY_SIZE])
{
    struct json_object *value;
    const char *text = NULL;
    for (size_t i = 0; i < p->identity.n && text == NULL; i++)
        text =
            json_at(doc, (struct json_path *)p->identity.items + i, NULL, &value) ? scalar_text(value) : NULL;
    if (text == NULL || text[0] == '\0')
        return;
    if (text[strspn(text, "0123456789")] == '\0')
        text += strspn(text, "0");
    char *name = xstrdup(text);
    if (name[strspn(name, "0123456789abcdefABCDEF-")] == '\0') {
        for (char *c = name; *c != '\0'; c++)
            *c = (char)tolower((unsigned char)*c);
    }
    sha256_hex(name, strlen(name), IDENTITY_SIZE - 1, out);
    free(name);
}

/* ---- the views ---- */

static enum outcome make_views(const struct view_input *q, struct json_object *doc, struct view *view)
{
    const struct list *kept = &q->provider->keep_paths;
    struct writer w = {.q = q, .doc = doc, .view = view, .out = &view->views[VIEW_NATIVE]};
    copy_object(&w, doc, &(struct keep){.paths = kept->items, .n = kept->n});
    view->created_at = time_of(doc, &q->provider->unified.created_at);
    if (view->state == STATE_SUCCEEDED)
        note_expiry(&w, time_of(doc, &q->provider->unified.expires_at));
    write_unified(&w, VIEW_UNIFIED);
    if (w.keyed)
        write_unified(&w, VIEW_KEYED);
    if (!view->views[VIEW_NATIVE].failed && !view->views[VIEW_UNIFIED].failed && !w.out->failed)
        return OUTCOME_OK;
    view->why = "the view would be too large";
    return OUTCOME_INVALID;
}

enum outcome view_read(const struct view_input *q, const struct view_answer *answer,
                       const struct view_answer *result, struct view *view)
{
    *view = (struct view){.state = STATE_NONE};
    for (size_t i = 0; i < VIEW_COUNT; i++)
        buf_init(&view->views[i], VIEW_MAX);
    buf_init(&view->result_path, PATH_MAX_BYTES);
    struct json_error error;
    struct json_object *doc = json_read(answer->body, answer->len, MAX_DEPTH, JSON_PLAIN, &error);
    if (doc == NULL)
        view->why = error.why;
    enum outcome outcome = classify(q->provider, &q->provider->ok, answer->http_status, doc, view);
    if (outcome == OUTCOME_OK && !read_state(q, answer->http_status, doc, view)) {
        view->why = "no status at its place";
        outcome = OUTCOME_INVALID;
    }
    if (outcome == OUTCOME_OK)
        outcome = read_result(q, doc, result, view);
    if (outcome == OUTCOME_OK) {
        write_identity(q->provider, doc, view->identity);
        outcome = make_views(q, doc, view);
    }
    json_object_put(doc);
    return outcome;
}

void view_done(struct view *view)
{
    for (size_t i = 0; i < VIEW_COUNT; i++)
        buf_done(&view->views[i]);
    buf_done(&view->result_path);
}
