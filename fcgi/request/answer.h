/* answer: status, headers and body of what a client gets, in the form of a CGI response. */
#ifndef ANSWER_H
#define ANSWER_H

#include "task/problem.h"
#include "task/snapshot.h"

/* Where an answer came from, for Cache-Status and X-Cache; of a list, that of the item furthest down. */
enum answer_source {
    SOURCE_NONE,      /* the request was refused before anything was looked for */
    SOURCE_MEMORY,    /* a fresh snapshot of this worker */
    SOURCE_REDIS,     /* a fresh snapshot of Redis */
    SOURCE_COLLAPSED, /* the query of another request */
    SOURCE_UPSTREAM,  /* a query made for this request */
    SOURCE_STALE      /* an old snapshot, because of a problem */
};

enum { ANSWER_ID_SIZE = 65 };

struct answer_facts {
    const char *request_id;    /* never NULL */
    const char *team;          /* who asks, for the web server's log; NULL: nobody in particular */
    const char *if_none_match; /* the header's value, or NULL */
    bool head_only;            /* the method is HEAD */
    enum answer_source source;
    bool stored;            /* SOURCE_UPSTREAM, SOURCE_COLLAPSED: it was kept */
    enum problem problem;   /* what failed; for SOURCE_STALE why */
    int64_t retry_after_ms; /* of a problem; 0: no header */
    int64_t ttl_ms;         /* of a problem that was in memory: how long it stays there */
    int64_t now_ms;
    const char *allow;      /* the methods that there are; NULL: those of a task */
    int waited_s;           /* how long the client was willing to wait, as it was granted; 0: not at all */
    bool no_content;        /* 204: a stream that has ended for good */
    int64_t limit;          /* a 429: how much there is in all of what is used up */
    bool by_origin;         /* who may read the answer depends on the page that asks, and on who does */
    const char *key_header; /* the header in which the provider's own clients have their key, or NULL */
    const char *origin;     /* (ref) the page that may read it, or NULL */
};

struct answer {
    int status;
    enum answer_source source;
    struct buf head;  /* ends with an empty line */
    struct buf text;  /* a body made here, or */
    const char *body; /* (ref) that or a snapshot's view */
    size_t body_len;
};

/* The id of the request: the one that the web server gave (may be NULL) if it is a plain word, or one of our
 * own. */
void answer_id(const char *given, char out[static ANSWER_ID_SIZE]);

/* The snapshot's view, or 304. It must outlive the answer. */
void answer_view(struct answer *answer, const struct answer_facts *facts, const struct snapshot *snapshot,
                 enum view_kind kind);

/* A problem document. */
void answer_problem(struct answer *answer, const struct answer_facts *facts);

/* One of many tasks. */
struct answer_item {
    const struct snapshot *snapshot; /* (ref) or NULL with a problem */
    enum problem problem;
};

/* {"tasks":[...]}: the unified view or the problem of each. */
void answer_many(struct answer *answer, const struct answer_facts *facts, const struct answer_item *items,
                 size_t n);

/* The ETag that answer_many gives. */
void answer_list_etag(const struct answer_item *items, size_t n, char etag[static ETAG_SIZE]);

/* Whether an If-None-Match names the tag (RFC 9110: a list, or "*"; weak ones match, too). NULL names none.
 */
bool answer_etag_matches(const char *list, const char *etag);

/* 204: it was taken. */
void answer_nothing(struct answer *answer, const struct answer_facts *facts);

/* What a browser asks before it lets a page ask; `wanted_headers` are those that the page would send, or NULL.
 */
void answer_preflight(struct answer *answer, const struct answer_facts *facts, const char *wanted_headers);

/* The header lines that say which request it was, and whose. */
void answer_add_request(struct buf *head, const struct answer_facts *facts);

/* The header lines that say what an answer depends on, and which page may read it. */
void answer_add_readers(struct buf *head, const struct answer_facts *facts);

/* Some text of our own (/healthz, /metrics); it must outlive the answer. */
void answer_text(struct answer *answer, const struct answer_facts *facts, int status, const char *type,
                 const struct buf *text);

void answer_done(struct answer *answer);

#endif
