/* pattern: the path of a provider's task, "/v1/videos/{kind}/{task_id}" or "/v1/query?task_id={task_id}".
 *
 * Matching a request gives the task's id: the values of the variables, in the order of the pattern, joined by
 * '/'. Building goes the other way, with each value percent-encoded. A value never holds a '/', so an id has
 * one meaning. */
#ifndef PATTERN_H
#define PATTERN_H

#include <regex.h>

#include "lib/buf.h"

enum { PATTERN_PARTS = 16, PATTERN_VARIABLES = 4, TASK_ID_MAX = 256 };

/* The values that a variable may have: a POSIX extended regular expression that matches the whole value. "/",
 * "." and ".." are never allowed. */
struct grammar {
    char *name; /* of the variable */
    regex_t regex;
    /* Most grammars are one class of characters and a length, "[A-Za-z0-9_-]{1,128}", and need no regex_t. */
    bool simple;
    bool class[256];
    size_t min, max;
};

MUST_CHECK int grammar_init(struct grammar *grammar, const char *name, const char *regex);
void grammar_done(struct grammar *grammar);
bool grammar_takes(const struct grammar *grammar, const char *value);

/* A path segment, or the value of a query parameter. */
struct pattern_part {
    char *literal;                 /* or NULL: */
    const struct grammar *grammar; /* (ref) of the variable */
    char *query_name;              /* of the parameter; NULL: a segment of the path */
};

struct pattern {
    char *text; /* as configured */
    struct pattern_part parts[PATTERN_PARTS];
    size_t n_parts;
    const struct grammar *variables[PATTERN_VARIABLES]; /* (ref) those of the parts, in the order of the id */
    size_t n_variables;
};

enum pattern_match {
    PATTERN_OTHER,  /* another path */
    PATTERN_BAD_ID, /* this path, with a value that does not match its grammar */
    PATTERN_MATCHES
};

/* Each variable must be in `grammars` and occur once; otherwise -1 with *ret_why (static text). */
MUST_CHECK int pattern_init(struct pattern *pattern, const char *text, const struct grammar *grammars,
                            size_t n_grammars, const char **ret_why);
void pattern_done(struct pattern *pattern);

/* `path` and `query` as received, percent-encoded; `query` may be NULL. `id` holds TASK_ID_MAX bytes. */
enum pattern_match pattern_match(const struct pattern *pattern, const char *path, const char *query,
                                 char *id);

/* Whether a task id ("fal-ai/pika/ID", percent-decoded) matches the pattern's variables. */
bool pattern_takes_id(const struct pattern *pattern, const char *id);

/* Builds the path and query for `id`, which pattern_match or pattern_takes_id has accepted. */
void pattern_build(const struct pattern *pattern, const char *id, struct buf *out);

/* Whether the pattern has a variable of that name, and the variable's value in an accepted id. */
bool pattern_has_variable(const struct pattern *pattern, const char *name);
bool pattern_variable(const struct pattern *pattern, const char *name, const char *id, char *out,
                      size_t size);

/* Whether the same id identifies the same task in both patterns, which have the same grammars. */
bool pattern_same_variables(const struct pattern *a, const struct pattern *b);

/* The value of a query parameter, percent-decoded into `out`; false if absent, duplicated, malformed or too
 * long. */
bool query_value(const char *query, const char *name, char *out, size_t size);

/* Percent-decodes `len` bytes; -1 for a malformed escape, a NUL, or more than `size` - 1 bytes. */
MUST_CHECK int percent_decode(const char *text, size_t len, char *out, size_t size);

#endif
