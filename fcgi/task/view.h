/* view: from the bytes that an upstream sent to what clients may see of them.
 *
 * A view is a new document, made of what the provider file lists; nothing is taken from the upstream's
 * document by removing things from it. A secret that the upstream repeats is replaced. */
#ifndef VIEW_H
#define VIEW_H

#include "task/redact.h"
#include "task/snapshot.h"

/* What an answer amounts to. */
enum reading {
    READING_OK,      /* a task: state and views are set */
    READING_HALF,    /* it has succeeded, and its result is to be asked for: result_path is set */
    READING_MISSING, /* the upstream knows no such task */
    READING_REFUSED, /* it refused our key */
    READING_BUSY,    /* we ask too often */
    READING_ERROR,   /* it failed, or an application error stands inside a 200 */
    READING_INVALID  /* not what this provider answers */
};

/* "ok", "half", "missing", "refused", "busy", "error" or "invalid". */
const char *reading_name(enum reading reading);

struct view {
    enum state state;
    bool known;             /* false: the status value is in no list, and the state is STATE_RUNNING */
    char status[64];        /* the status value as JSON text, for the log */
    const char *why;        /* READING_ERROR and READING_INVALID: the reason, static text */
    int64_t created_at;     /* seconds since 1970; 0: unknown */
    int64_t urls_expire_at; /* seconds since 1970; 0: never, as far as is known */
    struct buf views[VIEW_COUNT];
    struct buf result_path; /* READING_HALF: what to ask next */
};

/* What is asked, and what must not come back. */
struct view_question {
    const struct provider *provider;
    const char *task_id;
    const struct secrets *secrets; /* may be NULL */
};

struct view_answer {
    int http_status;
    const char *body;
    size_t len;
};

/* Fills `view`, which view_done() frees whatever is returned. `result` is the answer to the second query, or
 * NULL before it was made. */
enum reading view_read(const struct view_question *question, const struct view_answer *answer,
                       const struct view_answer *result, struct view *view);
void view_done(struct view *view);

#endif
