/* view: turns the bytes that an upstream sent into the documents that clients may see.
 *
 * A view is a new document, made of the members that the provider file lists; nothing is removed from the
 * upstream's document. A secret that the upstream repeats is replaced. */
#ifndef VIEW_H
#define VIEW_H

#include "task/snapshot.h"
#include "upstream/headers.h"
#include "upstream/outcome.h"

struct view {
    enum state state;
    bool known;                   /* false: the status value is in no list, and the state is STATE_RUNNING */
    char status[64];              /* the status value as JSON text, for the log */
    const char *why;              /* OUTCOME_ERROR and OUTCOME_INVALID: the details, static text, or NULL */
    int64_t created_at;           /* seconds since 1970; 0: unknown */
    int64_t urls_expire_at;       /* seconds since 1970; 0: never, as far as is known */
    char identity[IDENTITY_SIZE]; /* as in the snapshot */
    struct buf views[VIEW_COUNT];
    struct buf result_path; /* OUTCOME_PARTIAL: path of the second query */
};

/* The queried task, and the secrets that must not appear in its views. */
struct view_input {
    const struct provider *provider;
    const char *task_id;
    const struct secrets *secrets; /* may be NULL */
    const char *base_url;          /* of the upstream; may be NULL */
    bool unnamed; /* /v1/tasks/PROVIDER/ID leads to another route, so results have no "content" */
};

struct view_answer {
    int http_status;
    const char *body;
    size_t len;
};

/* Reads an answer: OK, PARTIAL, MISSING, REFUSED, FORBIDDEN, BUSY, ERROR, SERVER_ERROR or INVALID. Fills
 * `view`, which view_done() frees whatever is returned. `result` is the answer to the second query, or NULL
 * before there is one. */
enum outcome view_read(const struct view_input *input, const struct view_answer *answer,
                       const struct view_answer *result, struct view *view);
void view_done(struct view *view);

/* The earliest expiry in a signed URL's query, in seconds since 1970, or 0. Implausible values (before 2001, after 2100,
 * not a number) are ignored. */
int64_t url_expiry(const char *url);

/* Seconds since 1970 of "2025-01-14T15:15:46.72Z" or "...+08:00", UTC without a zone, or of "20250114T151546Z"; 0 if
 * the text is not such a date. */
int64_t iso8601_seconds(const char *text);

/* Adds `text` as a JSON string, with "[redacted]" in place of each secret; `secrets` may be NULL. */
void view_add_string(struct buf *out, const char *text, size_t len, const struct secrets *secrets);

#endif
