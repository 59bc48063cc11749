/* answer: the status, headers and body of an answer, in the form of a CGI response. */
#ifndef ANSWER_H
#define ANSWER_H

#include "task/route.h"

/* Where an answer came from, for Cache-Status and X-Cache. For a list, the highest value among its items. */
enum answer_source {
    SOURCE_NONE,      /* the request was refused before a lookup */
    SOURCE_MEMORY,    /* a fresh snapshot in this worker's cache */
    SOURCE_REDIS,     /* a fresh snapshot in Redis */
    SOURCE_COLLAPSED, /* the query of another request */
    SOURCE_UPSTREAM,  /* a query made for this request */
    SOURCE_STALE      /* an old snapshot, because of a problem */
};

enum { ANSWER_ID_SIZE = 65 };

struct answer_facts {
    const char *request_id;    /* never NULL */
    const char *team;          /* for the web server's log; NULL: none */
    const char *if_none_match; /* the header's value, or NULL */
    bool head_only;            /* the method is HEAD */
    enum answer_source source;
    bool stored;            /* SOURCE_UPSTREAM, SOURCE_COLLAPSED: the snapshot was kept */
    enum problem problem;   /* the failure; for SOURCE_STALE, why the snapshot is old */
    int64_t retry_after_ms; /* of a problem; 0: no header */
    int64_t ttl_ms;         /* of a problem in the cache: how long it stays there */
    struct moment now;
    const char *allow; /* the allowed methods; NULL: those of a task */
    int waited_s;      /* the wait that was granted to the client; 0: none */
    int64_t repeat_ms; /* for how long nginx may repeat the answer to this client; 0: not at all */
    enum route_kind kind;
    size_t content_number;     /* ROUTE_CONTENT: which result */
    const char *accept;        /* (ref) the header's value, or NULL */
    bool offload;              /* the web server can get a result with the key (CONTENT_OFFLOAD) */
    bool no_content;           /* 204: the stream has nothing more to send */
    int64_t limit;             /* for a 429: the limit that was reached */
    bool by_origin;            /* which page may read the answer depends on origin and credentials */
    const char *target_header; /* (ref) the header of a proxy protocol that says what is requested, or NULL */
    const char *key_header;    /* the header in which the provider's own clients have their key, or NULL */
    const char *origin;        /* (ref) of the page that may read the answer, or NULL */
};

struct answer {
    int status;
    enum answer_source source;
    struct buf head;         /* ends with an empty line */
    struct buf text;         /* a body that is made here, or the parts of a list that are not views */
    struct body_blob *blobs; /* the views in a list, or NULL */
    size_t n_blobs;
    struct body body; /* (ref) text, blobs and a snapshot's view; empty for HEAD */
};

/* The id of the request: the one from the web server (may be NULL) if it is a plain word, or else a random
 * one. */
void answer_id(const char *given, char out[static ANSWER_ID_SIZE]);

/* The snapshot's view, or 304. The snapshot must outlive the answer. */
void answer_view(struct answer *answer, const struct answer_facts *facts, const struct snapshot *snapshot,
                 enum view_kind kind);

/* A part of a view, or a document in place of a missing part. The answer takes ownership of the text. */
void answer_part(struct answer *answer, const struct answer_facts *facts, const struct snapshot *snapshot,
                 int status, const struct buf *text);

/* An answer without a body that says where a result is. The lines end the head. */
void answer_content(struct answer *answer, const struct answer_facts *facts, const struct snapshot *snapshot,
                    int status, const struct buf *lines);

/* A problem document. */
void answer_problem(struct answer *answer, const struct answer_facts *facts);

/* One of many tasks. */
struct answer_item {
    const struct snapshot *snapshot; /* (ref) or NULL with a problem */
    enum problem problem;
};

/* {"tasks":[...]}: the unified view or the problem of each. */
void answer_many(struct answer *answer, const struct answer_facts *facts, const struct answer_item *items,
                 size_t n, enum view_kind kind);

/* The ETag of answer_many. */
void answer_list_etag(const struct answer_item *items, size_t n, enum view_kind kind,
                      char etag[static ETAG_SIZE]);

/* Whether an Accept header (may be NULL) lists the media type, other than with q=0. */
bool answer_accepts(const char *accept, const char *type);

/* Whether an If-None-Match (may be NULL) has the tag (RFC 9110: a list, or "*"; weak tags match, too). */
bool answer_etag_matches(const char *list, const char *etag);

/* 204, for a webhook that was accepted. */
void answer_nothing(struct answer *answer, const struct answer_facts *facts);

/* The answer to a CORS preflight; `wanted_headers` are the headers that the page would send, or NULL. */
void answer_preflight(struct answer *answer, const struct answer_facts *facts, const char *wanted_headers);

/* The header lines of an event stream, with the empty line. The caller frees `out`. */
void answer_stream_head(const struct answer_facts *facts, struct buf *out);

/* A text such as /metrics, which must outlive the answer. */
void answer_text(struct answer *answer, const struct answer_facts *facts, int status, const char *type,
                 const struct buf *text);

void answer_done(struct answer *answer);

#endif
