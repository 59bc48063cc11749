/* provider: a provider file, read and checked - how to query one kind of task, and what the answers mean.
 *
 * Data only: a new provider is a new file. conf/providers/README.md describes the format; view.c applies it.
 */
#ifndef PROVIDER_H
#define PROVIDER_H

#include "lib/files.h"
#include "config/pattern.h"
#include "config/schema.h"

enum state {
    STATE_NONE,
    STATE_QUEUED,
    STATE_RUNNING,
    STATE_SUCCEEDED,
    STATE_FAILED,
    STATE_CANCELLED,
    STATE_COUNT
};

/* "queued" and so on. */
const char *state_name(enum state state);

/* The inverse; STATE_NONE for NULL and for other names. */
enum state state_by_name(const char *name);

/* Succeeded, failed or cancelled: the final states. */
bool state_ended(enum state state);

enum presence { PRESENCE_ANY, PRESENCE_FILLED, PRESENCE_EMPTY };

/* Holds when all of its parts hold. */
struct condition {
    int64_t http;        /* the status code; 0: any */
    struct json_path at; /* n_segments 0: the body is not checked */
    struct list equals;  /* of struct json_object *; empty: any value */
    int is;              /* enum presence */
    struct list also;    /* of struct condition: further conditions that must hold */
};

/* If the lists say `from` and the condition holds, the state is `state`. */
struct status_exception {
    int from; /* enum state */
    struct condition when;
    int state; /* enum state */
};

struct provider_status {
    struct json_path at;
    struct list lists[STATE_COUNT]; /* the values for each state; STATE_NONE has none */
    int absent;                     /* enum state: the state if `at` does not exist */
    struct list exceptions;         /* of struct status_exception */
};

enum progress_form { PROGRESS_PERCENT_TEXT, PROGRESS_PERCENT, PROGRESS_FRACTION };
enum time_form { TIME_UNIX_SECONDS, TIME_UNIX_MILLISECONDS, TIME_ISO8601, TIME_BEIJING };

struct progress_field {
    struct json_path at;
    int form; /* enum progress_form */
};

struct time_field {
    struct json_path at;
    int form;        /* enum time_form */
    int64_t plus_ms; /* added to the value */
};

enum download { DOWNLOAD_REDIRECT, DOWNLOAD_KEYED };

/* One row of results. The stars of `url` run over all members, and the other pointers use the same
 * indices. */
struct result_field {
    char *type;
    struct json_path url;
    struct json_path width, height, duration_seconds, bytes;
    int download;        /* enum download */
    char *path;          /* where the result is if the answer has no URL, with {variables}; NULL: nowhere */
    struct list origins; /* of char *: DOWNLOAD_KEYED: the origins that get the key; none: the upstream's */
};

struct unified_fields {
    struct progress_field progress;
    struct list error; /* of struct json_path: the first non-empty string is used */
    struct time_field created_at, started_at, finished_at, expires_at;
    struct list results; /* of struct result_field */
};

/* The answers at the path of the second query while there is no result. */
struct result_service {
    int64_t unfinished_status; /* 0: the path is not served */
    char *unfinished_detail;
    int64_t failed_status;
};

/* The second query, sent when the first answer says that the task has succeeded. In its path, "{/pointer}"
 * stands for a member of the first answer. */
struct result_query {
    char *path; /* NULL: there is no second query */
    char *into; /* the member of the document that the second answer becomes */
    struct condition ok;
    struct list failed; /* of struct condition: the task has failed */
    struct result_service served;
};

/* The provider's own proxy protocol: its clients request one path for everything, with the target URL in a header. */
struct provider_proxy {
    char *path; /* NULL: it has none */
    char *header;
    char *origin; /* of the URLs, "https://queue.fal.run" */
};

struct provider_auth {
    char *header;
    char *value; /* with "{key}", "{jwt}" or "{key-or-jwt}" */
};

/* How long a running task's snapshot is fresh: from min_ms for a young task to max_ms for an old one. */
struct provider_poll {
    int64_t min_ms, max_ms;
};

struct provider {
    char *name;
    char *path_text;
    char *task_id_text;
    struct list variables; /* of struct pair: name and grammar */
    struct provider_auth auth;
    struct list headers;  /* of struct pair */
    struct list hook;     /* of struct json_path: where a webhook's body names the task */
    struct list identity; /* of struct json_path: where an answer names its task */
    struct condition ok;  /* holds for every good answer */
    struct list missing;  /* of struct condition: the task does not exist */
    struct list refused;  /* of struct condition: the upstream refused the key */
    struct list busy;     /* of struct condition: the key is rate limited */
    struct provider_status status;
    struct result_query result;
    struct provider_proxy proxy;
    struct list keep_paths; /* of struct json_path, sorted by segments; none lies inside another one */
    struct unified_fields unified;
    struct provider_poll poll;
    char *retires; /* the last day of this interface at the upstream, "2026-10-31"; NULL: not known */

    /* Made from the above: */
    struct grammar grammars[PATTERN_VARIABLES];
    size_t n_grammars;
    struct pattern path;
    struct pattern result_path; /* of result.path if it is served; otherwise without text */
    char digest[17];            /* of the file; values in Redis with another digest are not used */
};

extern const struct table provider_table; /* of the file, for the manual */

/* Reads the file; NULL with *ret_error (allocated) that names file, line and key. */
struct provider *provider_load(struct files *files, const char *path, char **ret_error);
void provider_free(struct provider *provider); /* NULL is allowed */

/* The one with that name among `providers` (of struct provider *), or NULL. */
struct provider *provider_find(const struct list *providers, const char *name);

/* The number of days until `retires`, which must be set; negative afterwards. */
int64_t provider_days_left(const struct provider *provider, int64_t now_s);

/* The state for a status value; STATE_NONE if the file does not list it. */
enum state provider_state_of(const struct provider *provider, struct json_object *status);

/* Whether the key is sent for the URL of a result. It goes to the listed origins only; a result elsewhere is taken for
 * public. The URL of the upstream may be NULL. */
bool result_takes_key(const struct result_field *field, const char *base_url, const char *url);

/* Whether a value equals one of a list of S_SCALARS. */
bool scalar_is_among(struct json_object *value, const struct list *scalars);

/* The path that clients request, if a route overrides it; it uses the provider's grammars. */
MUST_CHECK int provider_pattern(const struct provider *provider, const char *text,
                                struct pattern *ret_pattern, const char **ret_why);

#endif
