/* provider: see provider.h. */
#include "config/provider.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { PROVIDER_FILE_MAX = 256 * 1024, DAY_LEN = 10 };

#define STATE_WORDS "none|queued|running|succeeded|failed|cancelled"

static const char *const state_names[] = {"none", "queued", "running", "succeeded", "failed", "cancelled"};

const char *state_name(enum state state)
{
    return state_names[state];
}

enum state state_by_name(const char *name)
{
    for (int state = STATE_QUEUED; state < STATE_COUNT; state++) {
        if (name != NULL && strcmp(name, state_names[state]) == 0)
            return (enum state)state;
    }
    return STATE_NONE;
}

bool state_ended(enum state state)
{
    return state >= STATE_SUCCEEDED;
}

static bool has_origin(const char *url, const char *origin)
{
    size_t len = origin ? strlen(origin) : 0;
    return len > 0 && strncasecmp(url, origin, len) == 0 && strchr("/?#", url[len]) != NULL;
}

bool result_takes_key(const struct result_field *field, const char *base_url, const char *url)
{
    char *const *origins = field->origins.items;
    bool listed = field->origins.n == 0 && has_origin(url, base_url);
    for (size_t i = 0; i < field->origins.n; i++)
        listed |= has_origin(url, origins[i]);
    return field->download == DOWNLOAD_KEYED && listed;
}

bool scalar_is_among(struct json_object *value, const struct list *scalars)
{
    for (size_t i = 0; i < scalars->n; i++) {
        if (json_object_equal(value, ((struct json_object **)scalars->items)[i]))
            return true;
    }
    return false;
}

enum state provider_state_of(const struct provider *p, struct json_object *status)
{
    for (int state = STATE_QUEUED; state < STATE_COUNT; state++) {
        if (scalar_is_among(status, &p->status.lists[state]))
            return (enum state)state;
    }
    return STATE_NONE;
}

int64_t provider_days_left(const struct provider *p, int64_t now_s)
{
    struct tm day = {0};
    strptime(p->retires, "%Y-%m-%d", &day);
    return timegm(&day) / 86400 - now_s / 86400;
}

/* ---- checks of single values, for the tables: the reason to refuse one, or NULL ---- */

/* A condition without members always holds, which only makes sense for "ok". */
static const char *refuse_condition(const void *value)
{
    const struct condition *c = value;
    bool looks = c->at.n_segments > 0, compares = c->equals.n > 0 || c->is != PRESENCE_ANY;
    bool says_something = compares ? looks : looks || c->http != 0 || c->also.n > 0;
    return says_something ? NULL : "must name \"http\", \"at\" or \"and\"";
}

static const char *refuse_exception(const void *value)
{
    const struct status_exception *exception = value;
    if (exception->from == STATE_NONE || exception->state == STATE_NONE)
        return "\"none\" is not allowed here";
    return refuse_condition(&exception->when);
}

static const char *refuse_day(const void *value)
{
    const char *text = *(char *const *)value;
    struct tm day = {0};
    char same[32] = "";
    if (strptime(text, "%Y-%m-%d", &day) != NULL)
        utc_text(timegm(&day), same);
    bool good = strlen(text) == DAY_LEN && memcmp(text, same, DAY_LEN) == 0;
    return good ? NULL : "must be a day, such as \"2026-10-31\"";
}

static const char *refuse_star(const void *value)
{
    const struct json_path *path = value;
    return strchr(path->text, '*') != NULL ? "must not contain '*': it names one task" : NULL;
}

/* ---- the tables of the format ---- */

/* Origins, and the path of "proxy", are printed into nginx's configuration, so they must need no quoting. */
#define ORIGIN .regex = "^https://[A-Za-z0-9_.-]+$", .must = "must be https:// and a host name"

#define CONDITION_FIELDS(owner, prefix)                                                                      \
    FIELD("http", S_INT, owner, prefix http, "0", "the HTTP status", .max = 599),                            \
        FIELD("at", S_POINTER, owner, prefix at, "null", "the member to check", ),                           \
        FIELD("equals", S_SCALARS, owner, prefix equals, "[]", "accepted values", ),                         \
        FIELD("is", S_ENUM, owner, prefix is, "\"any\"",                                                     \
              "filled: present and not null, \"\", [] or {}; empty: the opposite",                           \
              .words = "any|filled|empty"),                                                                  \
        FIELD("and", S_LIST, owner, prefix also, "[]", "further conditions that must hold",                  \
              .table = &condition_table, .refuse = refuse_condition)

#define COND struct condition
static const struct table condition_table;
static const struct field condition_fields[] = {CONDITION_FIELDS(COND, )};
static const struct table condition_table = TABLE(COND, condition_fields);

#define EXCEPTION struct status_exception
static const struct field exception_fields[] = {
    MEMBER(S_ENUM, EXCEPTION, from, REQUIRED, "the state according to the lists", .words = STATE_WORDS),
    CONDITION_FIELDS(EXCEPTION, when.),
    MEMBER(S_ENUM, EXCEPTION, state, REQUIRED, "the state if the condition holds", .words = STATE_WORDS),
};
static const struct table exception_table = TABLE(EXCEPTION, exception_fields);

#define STATUS struct provider_status
static const struct field status_fields[] = {
    MEMBER(S_POINTER, STATUS, at, REQUIRED, "the member that holds the status", ),
    FIELD("queued", S_SCALARS, STATUS, lists[STATE_QUEUED], "[]", "values of a task that waits", ),
    FIELD("running", S_SCALARS, STATUS, lists[STATE_RUNNING], "[]", "values of a task in progress", ),
    FIELD("succeeded", S_SCALARS, STATUS, lists[STATE_SUCCEEDED], "[]",
          "values of a task that has succeeded", ),
    FIELD("failed", S_SCALARS, STATUS, lists[STATE_FAILED], "[]", "values of a task that has failed", ),
    FIELD("cancelled", S_SCALARS, STATUS, lists[STATE_CANCELLED], "[]",
          "values of a task that was cancelled", ),
    MEMBER(S_ENUM, STATUS, absent, "\"none\"", "the state if the member is absent", .words = STATE_WORDS),
    FIELD("except", S_LIST, STATUS, exceptions, "[]", "other members that override the state",
          .table = &exception_table, .refuse = refuse_exception),
};
static const struct table status_table = TABLE(STATUS, status_fields);

#define AUTH struct provider_auth
static const struct field auth_fields[] = {
    MEMBER(S_STRING, AUTH, header, REQUIRED, "the header that carries the key", .refuse = schema_refuse_name),
    MEMBER(S_STRING, AUTH, value, REQUIRED, "its value, with {key}, {jwt} or {key-or-jwt}", .max = 256,
           .regex = "[{](key|jwt|key-or-jwt)[}]", .must = "must contain {key}, {jwt} or {key-or-jwt}"),
};
static const struct table auth_table = TABLE(AUTH, auth_fields);

#define POLL struct provider_poll
static const struct field poll_fields[] = {
    FIELD("min", S_DURATION, POLL, min_ms, "\"2s\"", "interval for a new task", .min = 100, .max = 3600000),
    FIELD("max", S_DURATION, POLL, max_ms, "\"15s\"", "interval for an old task", .min = 100, .max = 3600000),
};
static const struct table poll_table = TABLE(POLL, poll_fields);

#define PROGRESS struct progress_field
static const struct field progress_fields[] = {
    MEMBER(S_POINTER, PROGRESS, at, REQUIRED, "the member that holds it", ),
    FIELD("as", S_ENUM, PROGRESS, form, REQUIRED, "\"42%\", 42 or 0.42",
          .words = "percent-text|percent|fraction"),
};
static const struct table progress_table = TABLE(PROGRESS, progress_fields);

#define TIME struct time_field
static const struct field time_fields[] = {
    MEMBER(S_POINTER, TIME, at, REQUIRED, "the member that holds it; 0 and \"\" mean that it is not set", ),
    FIELD("as", S_ENUM, TIME, form, REQUIRED, "its format",
          .words = "unix-seconds|unix-milliseconds|iso8601|beijing"),
    FIELD("plus", S_DURATION, TIME, plus_ms, "\"0s\"", "added to it, such as a lifetime",
          .max = 366 * 86400000LL),
};
static const struct table time_table = TABLE(TIME, time_fields);

#define RESULT struct result_field
static const struct field result_fields[] = {
    MEMBER(S_STRING, RESULT, type, REQUIRED, "video, image, audio, ...", .min = 1, .max = 32),
    MEMBER(S_POINTER, RESULT, url, REQUIRED, "the URL", ),
    MEMBER(S_POINTER, RESULT, width, "null", "in pixels", ),
    MEMBER(S_POINTER, RESULT, height, "null", "in pixels", ),
    MEMBER(S_POINTER, RESULT, duration_seconds, "null", "duration in seconds", ),
    MEMBER(S_POINTER, RESULT, bytes, "null", "size in bytes", ),
    MEMBER(S_ENUM, RESULT, download, "\"redirect\"", "keyed: downloads need the key",
           .words = "redirect|keyed"),
    MEMBER(S_STRING, RESULT, path, "null", "path of the result if the answer has no URL", .max = 512),
    MEMBER(S_STRINGS, RESULT, origins, "[]", "origins that get the key; []: the upstream's own", ORIGIN),
};
static const struct table result_table = TABLE(RESULT, result_fields);

#define UNIFIED struct unified_fields
static const struct field unified_fields[] = {
    MEMBER(S_OBJECT, UNIFIED, progress, "null", "progress", .table = &progress_table),
    MEMBER(S_POINTERS, UNIFIED, error, "[]",
           "reason of a failure: the first of these that is a non-empty string", ),
    MEMBER(S_OBJECT, UNIFIED, created_at, "null", "when the task was created", .table = &time_table),
    MEMBER(S_OBJECT, UNIFIED, started_at, "null", "when work on the task began", .table = &time_table),
    MEMBER(S_OBJECT, UNIFIED, finished_at, "null", "when the task ended", .table = &time_table),
    MEMBER(S_OBJECT, UNIFIED, expires_at, "null", "when the results expire", .table = &time_table),
    MEMBER(S_LIST, UNIFIED, results, "[]", "the results", .table = &result_table),
};
static const struct table unified_table = TABLE(UNIFIED, unified_fields);

#define SERVICE struct result_service
static const struct field result_service_fields[] = {
    MEMBER(S_INT, SERVICE, unfinished_status, REQUIRED, "the status before the task has succeeded",
           .min = 400, .max = 499),
    MEMBER(S_STRING, SERVICE, unfinished_detail, REQUIRED, "the member \"detail\" of that answer",
           .max = 256),
    MEMBER(S_INT, SERVICE, failed_status, REQUIRED, "the status of a failed task", .min = 400, .max = 499),
};
static const struct table result_service_table = TABLE(SERVICE, result_service_fields);

#define QUERY struct result_query
static const struct field result_query_fields[] = {
    MEMBER(S_STRING, QUERY, path, REQUIRED, "with {variables} and {/pointers}", .min = 1, .max = 512),
    MEMBER(S_STRING, QUERY, into, REQUIRED, "the member under which the second answer is inserted", .min = 1,
           .max = 64),
    MEMBER(S_OBJECT, QUERY, ok, "{}", "condition that every answer without an error meets",
           .table = &condition_table),
    MEMBER(S_LIST, QUERY, failed, "[]", "conditions; if any holds, the task has failed",
           .table = &condition_table, .refuse = refuse_condition),
    MEMBER(S_OBJECT, QUERY, served, "null", "clients may request the path, too",
           .table = &result_service_table),
};
static const struct table result_query_table = TABLE(QUERY, result_query_fields);

#define PROXY struct provider_proxy
static const struct field proxy_fields[] = {
    MEMBER(S_STRING, PROXY, path, REQUIRED, "the path that clients request", .max = 128,
           .regex = "^/[A-Za-z0-9_./-]*$", .must = "must be a path of letters, digits and _ - . /"),
    MEMBER(S_STRING, PROXY, header, REQUIRED, "the header with the target URL", .refuse = schema_refuse_name),
    MEMBER(S_STRING, PROXY, origin, REQUIRED, "the origin of such a URL", .max = 256, ORIGIN),
};
static const struct table proxy_table = TABLE(PROXY, proxy_fields);

#define PROVIDER struct provider
static const struct field provider_fields[] = {
    MEMBER(S_STRING, PROVIDER, name, REQUIRED, "the file's name without .json", .refuse = schema_refuse_name),
    FIELD("path", S_STRING, PROVIDER, path_text, REQUIRED, "path of the query, with {variables}", .max = 512),
    FIELD("task_id", S_STRING, PROVIDER, task_id_text, REQUIRED, "regular expression for {task_id}",
          .max = 256),
    MEMBER(S_MAP_TEXT, PROVIDER, variables, "{}", "regular expressions for the other variables",
           .max = PATTERN_VARIABLES - 1),
    MEMBER(S_OBJECT, PROVIDER, auth, REQUIRED, "how the query presents the key", .table = &auth_table),
    MEMBER(S_MAP_TEXT, PROVIDER, headers, "{}", "further headers of the query; {uuid} becomes a new UUID", ),
    MEMBER(S_POINTERS, PROVIDER, hook, "[]", "members of a webhook's body that may hold the task id",
           .refuse = refuse_star),
    MEMBER(S_POINTERS, PROVIDER, identity, "null",
           "members of an answer that may name its task, for \"ownership\": the first that is there",
           .refuse = refuse_star),
    MEMBER(S_OBJECT, PROVIDER, ok, "{}",
           "condition that good answers meet, for upstreams that send errors with status 200",
           .table = &condition_table),
    MEMBER(S_LIST, PROVIDER, missing, "[]", "conditions; if any holds, the task does not exist",
           .table = &condition_table, .refuse = refuse_condition),
    MEMBER(S_LIST, PROVIDER, refused, "[]", "conditions; if any holds, the upstream refused the key",
           .table = &condition_table, .refuse = refuse_condition),
    MEMBER(S_LIST, PROVIDER, busy, "[]", "conditions; if any holds, the key is rate limited",
           .table = &condition_table, .refuse = refuse_condition),
    MEMBER(S_OBJECT, PROVIDER, status, REQUIRED, "how to read the status", .table = &status_table),
    MEMBER(S_OBJECT, PROVIDER, result, "null",
           "a second query, sent when the first says that the task has succeeded",
           .table = &result_query_table),
    MEMBER(S_OBJECT, PROVIDER, proxy, "null", "the provider's own proxy protocol", .table = &proxy_table),
    FIELD("keep", S_POINTERS, PROVIDER, keep_paths, REQUIRED, "members that the native view keeps", ),
    MEMBER(S_OBJECT, PROVIDER, unified, "{}", "where the unified view's members come from",
           .table = &unified_table),
    MEMBER(S_STRING, PROVIDER, retires, "null",
           "the last day of this interface at the upstream, such as \"2026-10-31\"", .refuse = refuse_day),
    MEMBER(S_OBJECT, PROVIDER, poll, "{}", "how often to query a running task", .table = &poll_table),
};
const struct table provider_table = TABLE(PROVIDER, provider_fields);

/* ---- checks that the tables cannot make ---- */

static char *make_grammars(struct provider *p, const struct schema_source *source)
{
    const struct pair *pairs = p->variables.items;
    if (grammar_init(&p->grammars[p->n_grammars], "task_id", p->task_id_text) < 0)
        return schema_error(source, "/task_id: is not an extended regular expression");
    p->n_grammars++;
    for (size_t i = 0; i < p->variables.n; i++) {
        const char *why = NULL;
        if (strcmp(pairs[i].name, "task_id") == 0)
            why = "belongs at the top level, not here";
        else if (grammar_init(&p->grammars[p->n_grammars], pairs[i].name, pairs[i].value) < 0)
            why = "is not an extended regular expression";
        if (why != NULL)
            return schema_error(source, "/variables/%s: %s", pairs[i].name, why);
        p->n_grammars++;
    }
    return NULL;
}

/* A value in two lists would mean two states. */
static char *refuse_doubled_status(const struct provider *p, const struct schema_source *source)
{
    for (int state = STATE_QUEUED; state < STATE_COUNT; state++) {
        const struct list *list = &p->status.lists[state];
        for (size_t i = 0; i < list->n; i++) {
            struct json_object *value = ((struct json_object **)list->items)[i];
            enum state first = provider_state_of(p, value);
            if (first != (enum state)state)
                return schema_error(source, "/status: %s is both %s and %s",
                                    json_object_to_json_string(value), state_name(first),
                                    state_name((enum state)state));
        }
    }
    return NULL;
}

/* The parts between braces are variables of the path, or pointers. */
static char *check_path(const struct provider *p, const struct schema_source *source, const char *place,
                        const char *at)
{
    if (at == NULL)
        return NULL;
    if (at[0] != '/')
        return schema_error(source, "%s: must begin with '/'", place);
    while ((at = strchr(at, '{')) != NULL) {
        size_t len = strcspn(++at, "}");
        char *name = xstrndup(at, len);
        struct json_path path;
        bool pointer = name[0] == '/' && json_path_init(&path, name) == 0;
        if (pointer)
            json_path_done(&path);
        bool good = at[len] == '}' && (pointer || pattern_has_variable(&p->path, name));
        free(name);
        if (!good)
            return schema_error(source, "%s: { and } must enclose a variable of \"path\" or a pointer",
                                place);
    }
    return NULL;
}

static char *check_paths(const struct provider *p, const struct schema_source *source)
{
    const struct result_field *results = p->unified.results.items;
    char *error = check_path(p, source, "/result/path", p->result.path);
    for (size_t i = 0; i < p->unified.results.n && error == NULL; i++)
        error = check_path(p, source, "/unified/results/path", results[i].path);
    return error;
}

static char *make_result_path(struct provider *p, const struct schema_source *source)
{
    const char *why = NULL;
    if (p->result.path == NULL || p->result.served.unfinished_status == 0)
        return NULL;
    if (provider_pattern(p, p->result.path, &p->result_path, &why) == 0 &&
        !pattern_same_variables(&p->path, &p->result_path))
        why = "must have the variables of \"path\", in the same order, to be served";
    return why ? schema_error(source, "/result/path: %s", why) : NULL;
}

/* A path inside another one would suggest a restriction that does not exist: the wider one keeps everything. */
static char *check_keep(const struct provider *p, const struct schema_source *source)
{
    const struct json_path *paths = p->keep_paths.items;
    for (size_t i = 0; i < p->keep_paths.n; i++) {
        for (size_t k = 0; k < p->keep_paths.n; k++) {
            size_t len = strlen(paths[i].text);
            if (i != k && strncmp(paths[i].text, paths[k].text, len) == 0 &&
                (paths[k].text[len] == '/' || paths[k].text[len] == '\0'))
                return schema_error(source, "/keep/%zu: is already kept by \"%s\"", k, paths[i].text);
        }
    }
    return NULL;
}

/* Header lines are built from these: their names are tokens (values have no control characters). */
static char *check_headers(const struct provider *p, const struct schema_source *source)
{
    const struct pair *pairs = p->headers.items;
    for (size_t i = 0; i < p->headers.n; i++) {
        if (strcasecmp(pairs[i].name, p->auth.header) == 0)
            return schema_error(source, "/headers: %s is the header of \"auth\"", pairs[i].name);
    }
    return NULL;
}

static char *finish(struct provider *p, const struct schema_source *source)
{
    const char *base = strrchr(source->file->path, '/'), *why;
    char *expected = xasprintf("%s.json", p->name), *error = NULL;
    if (strcmp(base ? base + 1 : source->file->path, expected) != 0)
        error = schema_error(source, "/name: must be the file's name without \".json\"");
    else if (p->poll.max_ms < p->poll.min_ms)
        error = schema_error(source, "/poll/max: must not be less than min");
    if (error == NULL)
        error = make_grammars(p, source);
    if (error == NULL && pattern_init(&p->path, p->path_text, p->grammars, p->n_grammars, &why) < 0)
        error = schema_error(source, "/path: %s", why);
    if (error == NULL)
        error = check_paths(p, source);
    if (error == NULL)
        error = make_result_path(p, source);
    if (error == NULL)
        error = check_headers(p, source);
    if (error == NULL)
        error = check_keep(p, source);
    if (error == NULL)
        error = refuse_doubled_status(p, source);
    free(expected);
    return error;
}

static int compare_paths(const void *a, const void *b)
{
    const struct json_path *one = a, *other = b;
    size_t n = one->n_segments < other->n_segments ? one->n_segments : other->n_segments;
    int order = 0;
    for (size_t i = 0; i < n && order == 0; i++)
        order = strcmp(one->segments[i], other->segments[i]);
    return order;
}

struct provider *provider_load(struct files *files, const char *path, char **ret_error)
{
    char *why;
    const struct file *file = files_get(files, path, FILE_PLAIN, PROVIDER_FILE_MAX, &why);
    if (file == NULL) {
        *ret_error = xasprintf("%s: %s", path, why);
        free(why);
        return NULL;
    }
    const struct schema_source source = {.file = file, .files = files};
    struct provider *p = xcalloc(1, sizeof(*p));
    *ret_error = NULL;
    if (schema_read(&provider_table, &source, p, ret_error) == 0)
        *ret_error = finish(p, &source);
    if (*ret_error != NULL) {
        provider_free(p);
        return NULL;
    }
    qsort(p->keep_paths.items, p->keep_paths.n, sizeof(struct json_path), compare_paths);
    sha256_hex(file->data, file->len, sizeof(p->digest) - 1, p->digest);
    return p;
}

void provider_free(struct provider *p)
{
    if (p == NULL)
        return;
    pattern_done(&p->path);
    pattern_done(&p->result_path);
    for (size_t i = 0; i < p->n_grammars; i++)
        grammar_done(&p->grammars[i]);
    schema_done(&provider_table, p);
    free(p);
}

struct provider *provider_find(const struct list *providers, const char *name)
{
    struct provider **all = providers->items;
    size_t i = 0;
    while (i < providers->n && strcmp(all[i]->name, name) != 0)
        i++;
    return i < providers->n ? all[i] : NULL;
}

int provider_pattern(const struct provider *p, const char *text, struct pattern *ret_pattern,
                     const char **ret_why)
{
    return pattern_init(ret_pattern, text, p->grammars, p->n_grammars, ret_why);
}
