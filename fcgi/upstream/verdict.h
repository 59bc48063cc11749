/* verdict: what the answer of an upstream means for a task. */
#ifndef VERDICT_H
#define VERDICT_H

#include "task/route.h"
#include "upstream/upstream.h"
#include "task/view.h"

/* One question to an upstream; all (ref). */
struct verdict_question {
    const struct task *task;
    const struct snapshot_rules *rules;
    const struct secrets *secrets;    /* what must not come back */
    const struct snapshot *last;      /* what was known of the task before, or NULL */
    const struct view_answer *before; /* the second of two queries: the answer to the first; else NULL */
};

struct verdict {
    enum reading reading;
    struct snapshot *snapshot; /* READING_OK: what is known of the task now */
    char status[64];           /* READING_OK of a status value that no list has: that value, for the log */
    char *result_path;         /* READING_HALF: what to ask next */
    enum problem problem;      /* otherwise */
    int64_t retry_after_ms;    /* of the problem; 0: unknown */
    char trouble[160];         /* what the log is to know of the upstream; "": all is well */
};

/* Judges an answer; the caller frees the verdict with verdict_done. */
void verdict_read(const struct verdict_question *question, const struct upstream_answer *answer,
                  struct verdict *ret_verdict);

/* What the answer says of the key that it was asked with. True: the task is to be asked for again, with another
 * one; false: the verdict is now that of all keys. */
bool verdict_ask_again(struct verdict *verdict, struct upstreams *upstreams,
                       const struct conf_upstream *upstream, struct key_turn *turn,
                       const struct upstream_answer *answer);

void verdict_done(struct verdict *verdict);

#endif
